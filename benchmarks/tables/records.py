"""Which committed records the results page and the model card show, and how measurements made apart are put together.

Figures of the refined stage count only where they were measured with the very adapter that comes with the package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from benchmarks.runs.averages import averages
from benchmarks.tables.writer import REPO, Record, records
from prorank.early_exit import readouts

FILE, STAGES_FILE = "results.jsonl", "stages.jsonl"
MODELS = REPO / "src" / "prorank" / "models"
NAME = "prorank-smollm2-135m"
MEASURE = "nDCG@10"
STAGES = ("base", "warmup", "refined")


def manifest() -> Record | None:
    """The manifest of the adapter that comes with the package, or None where it does not come yet."""
    path = MODELS / NAME / "prorank.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def weights(found: Record) -> dict[str, str]:
    """A manifest's files that margins are computed from -> sha256; read-outs are none of them."""
    return {name: sha256 for name, sha256 in found["files"].items() if name != readouts.FILE}


def is_shipped(description: Mapping[str, Any]) -> bool:
    """Whether a refined model in a record is the adapter in the package; anything goes before there is one."""
    found = manifest()
    if found is None:
        return True
    parts = [found["base_sha256"], *weights(found).values()]  # what Reranker.weights_sha256 is made of
    return description.get("weights_sha256") == hashlib.sha256("\n".join(parts).encode()).hexdigest()


def results() -> list[Record]:
    """The records of results.py that have nothing to do with an adapter other than the package's."""
    found = []
    for record in records(FILE):
        refined = [s for part in record["collections"] for s in part["systems"] if s["name"] == "refined"]
        if manifest() is None or (refined and all(is_shipped(system["description"]) for system in refined)):
            found.append(record)
    return found


def last_results() -> Record | None:
    """What is known of the most queries: the record with the most collections and queries, joined with later pieces.

    A collection that another record of the same backend and prompt length asked more queries of is taken from there;
    ``joined`` names those. The average is computed anew where every part kept the values of its queries; elsewhere it
    stays that of the record, and ``average_queries`` says of how many queries of each.
    """
    found = results()
    whole = max(reversed(found), key=lambda record: (len(record["collections"]), queries(record)), default=None)
    if whole is None:
        return None
    parts, joined = [], {}
    for part in whole["collections"]:
        rivals = [(one, record) for record in found for one in record["collections"] if alike(one, part)]
        best, record = max(reversed(rivals), key=lambda rival: rival[0]["dataset"]["queries"])
        if best["dataset"]["queries"] > part["dataset"]["queries"]:
            joined[part["dataset"]["name"]] = record
            part = best
        parts.append(part)
    if not joined:
        return whole
    anew = all("per_query" in part for part in parts)
    average = averages([part["per_query"]["values"] for part in parts]) if anew else whole["average"]
    asked = [] if anew else [part["dataset"]["queries"] for part in whole["collections"]]
    return {**whole, "collections": parts, "average": average, "joined": joined, "average_queries": asked}


def queries(record: Record) -> int:
    """How many queries of all collections together."""
    return sum(part["dataset"]["queries"] for part in record["collections"])


def alike(part: Record, other: Record) -> bool:
    """Whether two parts are of one collection and of rerankers set up alike."""

    def setup(one: Record) -> list[Any]:
        refined = [system["description"] for system in one["systems"] if system["name"] == "refined"]
        return [(found.get("backend"), found.get("max_length")) for found in refined]

    return part["dataset"]["name"] == other["dataset"]["name"] and setup(part) == setup(other)


def stage_results() -> Record | None:
    """The last record that has all stages."""
    return next((record for record in reversed(results()) if cells(record).keys() >= set(STAGES)), None)


def exact_results() -> Record | None:
    """The last record in float32, which other machines repeat to the last reported digit."""
    return next((record for record in reversed(results()) if record["settings"]["dtype"] == "float32"), None)


def stages() -> dict[tuple[str, str], Record]:
    """(collection, stage) -> its last record of stages.py, all with the settings of the very last one."""
    found = {}
    lines = [r for r in records(STAGES_FILE) if r["stage"] != "refined" or is_shipped(r["description"])]
    for record in lines:
        same = all(record["sample"][key] == lines[-1]["sample"][key] for key in ("pairs", "queries", "top_k", "seed"))
        if same and record["description"]["backend"] == lines[-1]["description"]["backend"]:
            found[record["dataset"]["name"], record["stage"]] = record
    return found


def cells(record: Record) -> dict[str, dict[str, dict[str, Any]]]:
    """System -> collection, or "average" -> mean, low, high and versus, of nDCG@10."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for part in record["collections"]:
        for system in part["systems"]:
            versus = {other: tested[MEASURE] for other, tested in system["versus"].items()}
            figures = {**system["measures"][MEASURE], "versus": versus}
            found.setdefault(system["name"], {})[part["dataset"]["name"]] = figures
    for name, figures in record["average"].items():
        found[name]["average"] = figures
    return found
