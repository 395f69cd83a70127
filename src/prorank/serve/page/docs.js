// Renders /openapi.json: routes, fields, an example call. No external code.
"use strict";

const kept = (() => { try { return localStorage.getItem("prorank-theme"); } catch { return null; } })();
if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;

const EXAMPLES = {
  "/v1/rerank": { query: "what is a margin?", documents: ["A margin is …", "Bread is …"], top_n: 1 },
  "/v2/rerank": { model: "rerank-v3.5", query: "what is a margin?", documents: ["A margin is …", "Bread is …"] },
  "/voyage/v1/rerank": { query: "what is a margin?", documents: ["A margin is …", "Bread is …"], top_k: 1 },
  "/infinity/rerank": { query: "what is a margin?", documents: ["A margin is …", "Bread is …"] },
  "/rerank": { query: "what is a margin?", texts: ["A margin is …", "Bread is …"] },
  "/score": { text_1: "what is a margin?", text_2: ["A margin is …", "Bread is …"] },
  "/v1/score": { text_1: "what is a margin?", text_2: ["A margin is …", "Bread is …"] },
};

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function kind(schema) {
  if (schema.anyOf) return schema.anyOf.map(kind).filter((one) => one !== "null").join(" or ");
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `list of ${kind(schema.items || {})}`;
  return schema.const ? JSON.stringify(schema.const) : schema.type || "any";
}

function fields(schema) {
  const table = make("table");
  for (const [name, field] of Object.entries(schema.properties || {})) {
    const line = make("tr");
    const title = make("td");
    title.append(make("code", "", name));
    if ((schema.required || []).includes(name)) title.append(make("span", "muted", " required"));
    line.append(title, make("td", "muted", kind(field)), make("td", "", field.description || ""));
    table.append(line);
  }
  return table;
}

function route(path, method, operation, schemas) {
  const box = make("details");
  const head = make("summary");
  head.append(make("span", "method", method.toUpperCase()), make("code", "", path), make("span", "muted", operation.summary || ""));
  box.append(head);
  const body = operation.requestBody && operation.requestBody.content["application/json"].schema;
  for (const one of body ? body.anyOf || [body] : []) {
    const name = one.$ref.split("/").pop();
    box.append(make("h4", "", name), fields(schemas[name]));
  }
  if (EXAMPLES[path] && method === "post") {
    const address = new URL(".", location.href).href.replace(/\/$/, "");
    box.append(make("h4", "", "Example"), make("pre", "", `curl ${address}${path} -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(EXAMPLES[path])}'`));
  }
  const statuses = make("table");
  for (const [status, answer] of Object.entries(operation.responses || {})) {
    const line = make("tr");
    line.append(make("td", "", status), make("td", "muted", answer.description || ""));
    statuses.append(line);
  }
  box.append(make("h4", "", "Answers"), statuses);
  return box;
}

(async () => {
  const main = document.getElementById("api");
  try {
    const schema = await (await fetch("openapi.json")).json();
    const boxes = [];
    for (const [path, methods] of Object.entries(schema.paths)) {
      for (const [method, operation] of Object.entries(methods)) boxes.push(route(path, method, operation, schema.components.schemas));
    }
    main.replaceChildren(make("p", "muted", "Every route takes instruction and raw_scores as further fields."), ...boxes);
  } catch {
    main.replaceChildren(make("p", "error", "The schema could not be read."));
  }
})();
