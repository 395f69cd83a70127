// The page of `prorank serve`: no framework, no build step, no request to anywhere but this server.
"use strict";

const $ = (id) => document.getElementById(id);
const SHOWN = 50; // rows a column before "show all"
const EXPLAINED = 5; // best results whose sentences are marked

const EXAMPLE = {
  query: "how do vaccines create lasting immunity",
  documents: [
    "Vaccines must be kept cold: most lose their strength within hours at room temperature.",
    "The word vaccine comes from vacca, the Latin for cow, after the cowpox that Jenner used in 1796.",
    "A public health campaign raised the share of vaccinated children from 71 to 93 percent in three years.",
    "After vaccination, memory B cells and T cells stay in the body for years and respond at once when the real germ arrives.",
    "Immunity from prosecution protects diplomats from the courts of the country they serve in.",
    "Antibiotics kill bacteria but do nothing against viruses, so they do not help with a cold.",
    "A vaccine shows the immune system a harmless piece of a germ, so that it learns to make antibodies against it.",
    "Booster doses are given when protection fades: they remind memory cells and raise the level of antibodies again.",
    "Regular sleep and exercise support the immune system, though no diet has been shown to prevent infection.",
    "The vaccine market was worth about 60 billion dollars in 2023.",
  ],
};

const state = { models: [], lastRequest: null, runs: 0 };

// -- documents ------------------------------------------------------------------------------------------------------

function parseDocuments(text) {
  const clean = text.replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n");
  if (/^\s*\[/.test(clean)) {
    let list = null;
    try { list = JSON.parse(clean); } catch { /* then it is text that begins with a bracket */ }
    if (Array.isArray(list)) return list.map(fromJson);
  }
  const lines = clean.split("\n");
  const filled = lines.map((line, i) => [line.trim(), i + 1]).filter(([line]) => line);
  if (filled.length && filled[0][0].startsWith("{")) {
    return filled.map(([line, number]) => {
      let value;
      try { value = JSON.parse(line); } catch { throw new Error(`Line ${number} is not valid JSON.`); }
      return fromJson(value, number - 1);
    });
  }
  if (/\S\n[ \t]*\n\s*\S/.test(clean)) {
    const paragraphs = clean.split(/\n[ \t]*\n/).map((part) => part.trim().replace(/\s*\n\s*/g, " ")).filter(Boolean);
    if (paragraphs.length > 1) return paragraphs;
  }
  return filled.map(([line]) => line);
}

function fromJson(value, index) {
  if (typeof value === "string") return value;
  if (value && typeof value === "object" && typeof value.text === "string") {
    return value.title ? `${value.title} ${value.text}` : value.text;
  }
  throw new Error(`Line ${index + 1} has no “text”.`);
}

function countDocuments() {
  let count = 0;
  try { count = parseDocuments($("documents").value).length; } catch { /* told when it matters */ }
  $("count").textContent = count ? `· ${count}` : "";
}

async function readFile(file) {
  if (!file) return;
  if (file.size > 20_000_000) return fail("documents", `${file.name} is larger than 20 MB.`);
  const text = await file.text();
  if (text.includes("\u0000")) return fail("documents", `${file.name} is not a text file.`);
  try {
    const documents = parseDocuments(text);
    if (!documents.length) return fail("documents", `${file.name} holds no documents.`);
    $("documents").value = text.trim();
    clearErrors();
    countDocuments();
    say(`${documents.length} documents from ${file.name}.`);
  } catch (error) {
    fail("documents", `${file.name}: ${error.message}`);
  }
}

// -- talking to the server ------------------------------------------------------------------------------------------

function headers() {
  const key = $("key").value.trim();
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function call(path, body) {
  let response;
  try {
    response = await fetch(path, body ? { method: "POST", headers: headers(), body: JSON.stringify(body) } : { headers: headers() });
  } catch {
    throw new Error("The server does not answer.");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return { answer, response };
  if (response.status === 401) {
    $("key-row").hidden = false;
    $("key").focus();
  }
  const said = answer && (answer.detail || answer.message);
  const wait = response.headers.get("retry-after");
  const hint = response.status === 429 || response.status === 503 ? ` Try again in ${wait || "a few"} seconds.` : "";
  throw new Error(`${said || `The server answered ${response.status}`}.${hint}`.replace("..", "."));
}

async function connect() {
  const box = $("server");
  try {
    const { answer } = await call("v1/models");
    state.models = answer.data;
    fillModels();
    const first = state.models.find((model) => model.default) || state.models[0];
    const more = state.models.length - 1;
    $("server-text").textContent = first.id + (more > 0 ? ` and ${more} more` : "");
    box.className = "server ok";
    box.title = Object.entries(first.details).map(([name, value]) => `${name}: ${value}`).join("\n");
  } catch (error) {
    $("server-text").textContent = $("key-row").hidden ? "no answer" : "key needed";
    box.className = "server bad";
    say(error.message, true);
  }
}

function fillModels() {
  const names = state.models.map((model) => model.id);
  const chosen = $("model").value;
  $("model").replaceChildren(...names.map((name) => new Option(name, name)));
  $("other").replaceChildren(new Option("nothing", ""), ...names.map((name) => new Option(name, name)));
  if (names.includes(chosen)) $("model").value = chosen;
  $("models").classList.toggle("single", names.length < 2);
  showDefaultInstruction();
}

function showDefaultInstruction() {
  const model = state.models.find((one) => one.id === $("model").value);
  $("instruction").placeholder = (model && model.details.default_instruction) || "The model's own instruction";
}

// -- reranking ------------------------------------------------------------------------------------------------------

async function rerank(event) {
  event.preventDefault();
  if ($("go").getAttribute("aria-disabled") === "true") return;
  clearErrors();
  const query = $("query").value.trim();
  let documents;
  try {
    documents = parseDocuments($("documents").value);
  } catch (error) {
    return fail("documents", error.message);
  }
  if (!query) return fail("query", "Type a query first.");
  if (!documents.length) return fail("documents", "Paste at least one document, or open a file.");

  const names = [$("model").value, $("other").value].filter((name, i, all) => name && all.indexOf(name) === i);
  if (!names.length) names.push("");
  const least = Number($("least").value);
  if (!$("least").validity.valid) {
    $("more-box").open = true;
    return fail("least", "A probability is a number from 0 to 1.");
  }
  const instruction = $("instruction").value.trim();
  const body = (name) => ({
    query, documents, return_documents: false, return_margins: true,
    ...($("explain").checked ? { explain: EXPLAINED } : {}), ...($("chunks").checked ? { return_chunks: true } : {}),
    ...(least > 0 ? { min_score: least } : {}),
    ...(instruction ? { instruction } : {}), ...(name && state.models.length > 1 ? { model: name } : {}),
  });
  const run = ++state.runs;
  busy(true);
  say(`Reading ${documents.length} documents …`);
  const started = performance.now();
  try {
    const answers = await Promise.all(names.map((name) => call("v1/rerank", body(name)).then(({ answer }) => answer)));
    if (run !== state.runs) return;
    const seconds = (performance.now() - started) / 1000;
    state.lastRequest = body(names[0]);
    show(documents, answers);
    $("server").className = "server ok";
    const best = answers[0].results[0];
    const out = answers[0].meta.left_out;
    $("summary").textContent = `${documents.length} documents${out ? `, ${out} left out` : ""} · ${seconds < 10 ? seconds.toFixed(2) : seconds.toFixed(0)} s · ${answers[0].usage.total_tokens.toLocaleString("en")} tokens`;
    say(best ? `Done. The best document was number ${best.index + 1}.` : "Done. No document reaches the least probability.");
    if (innerWidth <= 900) $("results").scrollIntoView({ behavior: "smooth" });
  } catch (error) {
    say(error.message, true);
  } finally {
    busy(false);
  }
}

function show(documents, answers) {
  $("empty").hidden = true;
  $("copy").hidden = false;
  const columns = $("columns");
  columns.hidden = false;
  columns.style.setProperty("--columns", answers.length + 1);
  columns.classList.toggle("three", answers.length > 1);
  const places = new Map(answers[0].results.map((result, place) => [result.index, place + 1]));
  const given = documents.map((text, index) => ({ index, text, now: places.get(index) }));
  const lists = [column("First stage", "as given", given, "input")];
  for (const answer of answers) {
    const rows = answer.results.map((result, place) => ({
      index: result.index, text: documents[result.index], moved: result.index - place,
      score: result.relevance_score, margin: result.margin, chunk: result.chunk, sentences: result.sentences,
    }));
    lists.push(column(answers.length > 1 ? answer.model : "Reranked", answers.length > 1 ? "reranked" : answer.model, rows, "reranked"));
  }
  columns.replaceChildren(...lists);
}

function column(title, note, rows, kind) {
  const box = make("section", `column ${kind}`);
  const head = make("header");
  const name = make("h3", "", title);
  name.title = title;
  head.append(name, make("p", "", note));
  const list = make("ol");
  list.setAttribute("aria-label", `${title}, ${note}`);
  list.append(...rows.slice(0, SHOWN).map(row));
  box.append(head, list);
  if (rows.length > SHOWN) {
    const more = make("button", "more", `Show all ${rows.length}`);
    more.type = "button";
    more.addEventListener("click", () => {
      list.append(...rows.slice(SHOWN).map((one, i) => row(one, i + SHOWN)));
      list.children[SHOWN].focus();
      more.remove();
    });
    box.append(more);
  }
  return box;
}

function row(data, place) {
  const item = make("li", "row");
  item.tabIndex = 0;
  item.dataset.index = data.index;
  item.append(make("span", "rank", String(place + 1)), textOf(data));
  if (data.sentences) item.classList.add("open");
  if (data.score === undefined) {
    const now = make("span", data.now <= 3 ? "moved top" : "moved");
    now.title = data.now ? "Where it went" : "Below the least probability";
    now.append(hidden(data.now ? `→ ${data.now}` : "–"), make("span", "sr", data.now ? `now number ${data.now}` : "left out"));
    item.append(now, make("span", "score"));
  } else {
    item.append(movement(data.moved));
    const score = make("div", "score");
    const track = make("span", "track");
    const fill = make("span", "fill");
    fill.style.width = `${Math.max(data.score * 100, 0.6)}%`;
    track.append(fill);
    const value = make("span", "value", data.score >= 0.9995 ? "1.000" : data.score.toFixed(3));
    score.title = `probability ${data.score.toPrecision(4)}, margin ${data.margin.toFixed(4)}`;
    value.setAttribute("aria-label", `probability ${data.score.toFixed(3)}`);
    track.setAttribute("aria-hidden", "true");
    score.append(track, value);
    item.append(score);
  }
  return item;
}

// The document's text: what was not read is faint, sentences are marked by what the margin owes to them.
function textOf(data) {
  const text = make("p", "text");
  const points = [...data.text]; // the server counts characters, JavaScript halves of some
  const slice = (from, to) => points.slice(from, to).join("");
  const read = data.chunk || { start: 0, end: points.length };
  const most = Math.max(...(data.sentences || []).map((one) => Math.abs(one.weight)), 1e-9);
  const cuts = new Set([0, points.length, read.start, read.end]);
  for (const one of data.sentences || []) cuts.add(one.start).add(one.end);
  const ordered = [...cuts].sort((a, b) => a - b);
  ordered.slice(1).forEach((end, i) => {
    const start = ordered[i];
    const sentence = (data.sentences || []).find((one) => one.start <= start && end <= one.end);
    const part = make(sentence ? "mark" : "span", start < read.start || end > read.end ? "unread" : "", slice(start, end));
    if (sentence) {
      part.style.setProperty("--share", `${Math.round(60 * Math.abs(sentence.weight) / most)}%`);
      part.classList.add(sentence.weight > 0 ? "for" : "against");
      part.title = `${sentence.weight > 0 ? "+" : ""}${sentence.weight.toFixed(2)} of the margin`;
    }
    text.append(part);
  });
  return text;
}

function movement(moved) {
  const chip = make("span", `moved ${moved > 0 ? "up" : moved < 0 ? "down" : ""}`);
  chip.append(
    hidden(moved ? `${moved > 0 ? "↑" : "↓"} ${Math.abs(moved)}` : "="),
    make("span", "sr", moved ? `${moved > 0 ? "up" : "down"} ${Math.abs(moved)}` : "unmoved"),
  );
  return chip;
}

// The same document lights up in every column, under the pointer or the keyboard's focus; arrows walk the list.
function light(target) {
  const item = target && target.closest && target.closest(".row");
  for (const other of document.querySelectorAll(".row.same")) other.classList.remove("same");
  if (item) for (const other of document.querySelectorAll(`.row[data-index="${item.dataset.index}"]`)) other.classList.add("same");
}

function walk(event) {
  const item = event.target.closest(".row");
  if (!item) return;
  const all = [...item.parentElement.children];
  const at = all.indexOf(item);
  const goTo = { ArrowDown: all[at + 1], ArrowUp: all[at - 1], Home: all[0], End: all[all.length - 1] }[event.key];
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const lists = [...document.querySelectorAll(".column")];
    const next = lists[lists.indexOf(item.closest(".column")) + (event.key === "ArrowRight" ? 1 : -1)];
    const twin = next && next.querySelector(`.row[data-index="${item.dataset.index}"]`);
    if (twin) { event.preventDefault(); twin.focus(); }
  } else if (goTo) {
    event.preventDefault();
    goTo.focus();
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    item.classList.toggle("open");
  }
}

// -- copying --------------------------------------------------------------------------------------------------------

const address = () => new URL(".", location.href).href.replace(/\/$/, "");

function curl() {
  const quoted = JSON.stringify(state.lastRequest).replaceAll("'", "'\\''");
  const key = $("key").value.trim() ? ` \\\n  -H "Authorization: Bearer $PRORANK_API_KEY"` : "";
  return `curl ${address()}/v1/rerank${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}

function python() {
  const { query, documents, instruction, model, min_score: least, explain, return_chunks: chunks } = state.lastRequest;
  const escaped = (c) => { // JSON's strings are Python's, but for characters beyond U+FFFF
    const code = c.codePointAt(0);
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  };
  const text = (value) => JSON.stringify(value).replace(/[\u{7f}-\u{10ffff}]/gu, escaped);
  const key = $("key").value.trim() ? `, api_key=os.environ["PRORANK_API_KEY"]` : "";
  const options = [["instruction", instruction], ["model", model]].filter(([, value]) => value);
  const further = options.map(([name, value]) => `, ${name}=${text(value)}`).join("")
    + (least ? `, min_score=${least}` : "") + (explain ? `, explain=${explain}` : "") + (chunks ? ", return_chunks=True" : "");
  return `${key ? "import os\n\n" : ""}from prorank import Client

documents = [
${documents.map((one) => `    ${text(one)},`).join("\n")}
]
with Client(${text(address())}${key}) as client:
    for result in client.rank(${text(query)}, documents${further}):
        print(f"{result.probability:.3f}  {result.text}")
`;
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no clipboard without HTTPS or on older browsers
    const area = make("textarea", "sr", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(`${what} copied.`);
}

// -- small things ---------------------------------------------------------------------------------------------------

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function hidden(text) {
  const node = make("span", "", text);
  node.setAttribute("aria-hidden", "true");
  return node;
}

function say(text, failed = false) {
  $("status").textContent = text;
  $("status").classList.toggle("failed", failed);
}

function fail(field, text) {
  const note = $(`${field}-error`);
  note.textContent = text;
  note.hidden = false;
  $(field).setAttribute("aria-invalid", "true");
  $(field).focus();
  say(text, true);
  note.hidden = false;
  $("status").textContent = "";
}

function clearErrors() {
  for (const field of ["query", "documents", "least"]) {
    $(`${field}-error`).hidden = true;
    $(field).removeAttribute("aria-invalid");
  }
  say("");
}

function busy(on) {
  $("go").setAttribute("aria-disabled", String(on));
  $("go").textContent = on ? "Reranking …" : "Rerank";
}

function useExample() {
  $("query").value = EXAMPLE.query;
  $("documents").value = EXAMPLE.documents.join("\n");
  clearErrors();
  countDocuments();
  $("go").focus();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").setAttribute("aria-label", `Use the ${name === "dark" ? "light" : "dark"} theme`);
}

function isDark() {
  return (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

function stored(value) {
  try {
    if (value === undefined) return localStorage.getItem("prorank-theme");
    localStorage.setItem("prorank-theme", value);
  } catch { /* storage may be forbidden: the theme then follows the system */ }
  return null;
}

const kept = stored();
if (kept === "dark" || kept === "light") theme(kept);
else $("theme").setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);

$("theme").addEventListener("click", () => { const name = isDark() ? "light" : "dark"; theme(name); stored(name); });
$("form").addEventListener("submit", rerank);
$("documents").addEventListener("input", countDocuments);
$("example").addEventListener("click", useExample);
$("example-2").addEventListener("click", useExample);
$("clear").addEventListener("click", () => { $("documents").value = ""; countDocuments(); clearErrors(); $("documents").focus(); });
$("browse").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { readFile($("file").files[0]); $("file").value = ""; });
$("model").addEventListener("change", showDefaultInstruction);
$("key").addEventListener("change", connect);
$("copy-curl").addEventListener("click", () => copy(curl(), "curl command"));
$("copy-python").addEventListener("click", () => copy(python(), "Python code"));
$("columns").addEventListener("mouseover", (event) => light(event.target));
$("columns").addEventListener("mouseleave", () => light(document.activeElement));
$("columns").addEventListener("focusin", (event) => light(event.target));
$("columns").addEventListener("keydown", walk);
$("columns").addEventListener("click", (event) => { const item = event.target.closest(".row"); if (item && !String(getSelection())) item.classList.toggle("open"); });
document.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit(); });
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("documents").addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    $("documents").classList.toggle("dropping", kind === "dragover");
    if (kind === "drop") readFile(event.dataTransfer.files[0]);
  });
}
connect();
