"""Writes the tables of docs/results.md from the records of results.py and stages.py; no figure there is typed by hand.

Figures of the refined stage are shown only where they were measured with the very adapter that comes with the package.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from benchmarks.tables.records import (
    MEASURE,
    NAME,
    STAGES,
    cells,
    exact_results,
    last_results,
    stage_results,
    stages,
)
from benchmarks.tables.writer import DOCS, Record, made, records, table

PAGE = DOCS / "results.md"
ALPHA = 0.05
MISSING = "not measured"
TITLES = {
    "bm25": "BM25",
    "minilm": "MiniLM bi-encoder",
    "fused": "BM25 and MiniLM, reciprocal ranks",
    "base": "zero-shot base",
    "warmup": "warmup only",
    "refined": "refined",
    "refined+bm25": "refined and BM25, reciprocal ranks",
}
UNDERSTANDING = ("format_success", "balanced_accuracy", "margin_auc")
EXPRESSIVENESS = (
    "distinct_share", "tie_rate", "score_entropy", "spread", "d_prime", "query_auc", "calibration_error",
    "effective_rank",
)  # fmt: skip


# ---- results.py's figures, on its terminal and on the page


def spread(found: Mapping[str, float], sign: str = "") -> str:
    """A mean with its interval."""
    return f"{found['mean']:{sign}.4f} [{found['low']:{sign}.4f}, {found['high']:{sign}.4f}]"


def quality(record: Record, systems: Sequence[str] = ()) -> str:
    """nDCG@10 of every system, or of these, on every collection, with 95 % intervals."""
    places = [part["dataset"]["name"] for part in record["collections"]]
    heads = [f"{part['dataset']['name']} ({part['dataset']['queries']})" for part in record["collections"]]
    found = cells(record)
    rows = []
    for name in systems or found:
        shown = [spread(found[name][place]) if place in found[name] else MISSING for place in [*places, "average"]]
        rows.append([TITLES.get(name, name), *shown])
    return table([f"{MEASURE} (queries)", *heads, average_name(record)], rows)


def average_name(record: Record) -> str:
    """Names the queries behind an average that is of fewer than the columns beside it."""
    asked = ", ".join(map(str, record.get("average_queries", [])))
    return f"average ({asked})" if asked else "average"


def comparisons(record: Record) -> str:
    """Every system's difference to BM25 and to MiniLM, with the paired test."""
    rows = []
    for name, row in cells(record).items():
        for where, found in row.items():
            if found["versus"]:
                tested = [found["versus"].get(other) for other in ("bm25", "minilm")]
                shown = [[spread(t, "+"), f"{t['p_holm']:.4f}"] if t else ["", ""] for t in tested]
                rows.append([TITLES.get(name, name), where, *shown[0], *shown[1]])
    return table(["system", "collection", "against BM25", "p (Holm)", "against MiniLM", "p (Holm)"], rows)


def verdict(tested: Mapping[str, float]) -> str:
    if tested["p_holm"] >= ALPHA:
        return "not shown to differ"
    return "better" if tested["mean"] > 0 else "worse"


def verdicts(record: Record, system: str, other: str) -> dict[str, list[str]]:
    """ "better", "worse", "not shown to differ" -> where a system is that beside another; "average" is a place too."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "not shown to differ": []}
    for where, figures in cells(record).get(system, {}).items():
        if other in figures["versus"]:
            found[verdict(figures["versus"][other])].append(where)
    return found


# ---- the page


def findings() -> str:
    """What the tests say of the refined model, in sentences."""
    record = last_results()
    if record is None or "refined" not in cells(record):
        return f"The refined `{NAME}`: {MISSING}."
    lines = []
    for other in ("bm25", "minilm"):
        found = verdicts(record, "refined", other)
        places = {what: [w for w in where if w != "average"] for what, where in found.items()}
        words = [f"{what} on {', '.join(where)}" for what, where in places.items() if where]
        average = cells(record)["refined"]["average"]["versus"].get(other)
        if average:
            words.append(
                f"on {average_name(record)} {spread(average, '+')}, p = {average['p_holm']:.4f}: {verdict(average)}"
            )
        lines.append(f"- Against {TITLES[other]}: {'; '.join(words) or MISSING}.")
    return "\n".join(lines)


def source(record: Record) -> str:
    """How a record, or several that were joined, came about."""
    joined: Mapping[str, Record] = record.get("joined", {})
    return "\n".join([settings_of(record, joined), *(settings_of(other) for other in joined.values())])


def settings_of(record: Record, without: Collection[str] = ()) -> str:
    """Queries, precision, prompt length, commit and machine of one record, less the collections named."""
    settings = record["settings"]
    asked = settings["queries"]
    if isinstance(asked, dict):
        queries = ", ".join(f"{n or 'all'} queries of {name}" for name, n in asked.items() if name not in without)
    else:
        alone = len(settings["collections"]) == 1
        queries = f"up to {asked} queries" if asked else "all queries"
        queries += f" of {settings['collections'][0]}" if alone else " per collection" if asked else ""
    length = (
        f"{settings['max_length']} tokens per prompt" if settings["max_length"] else "each model's own prompt length"
    )
    device = record["environment"].get("gpu", "")
    return (
        f"{queries}; {settings['dtype']}; {length}; {made(record)}{', ' + device if device else ''}; {record['time']}."
    )


def quality_table() -> str:
    record = last_results()
    return f"{quality(record)}\n\n{source(record)}" if record else f"{MISSING.capitalize()}."


def stage_table() -> str:
    """What each stage adds, on the queries that all three were asked."""
    record = stage_results()
    return f"{quality(record, ('bm25', *STAGES))}\n\n{source(record)}" if record else f"{MISSING.capitalize()}."


def exact_table() -> str:
    """What `make results` repeats."""
    record = exact_results()
    return f"{quality(record)}\n\n{source(record)}" if record else f"{MISSING.capitalize()}."


def ablation() -> str:
    """What each stage is worth for the same number of documents."""
    from benchmarks.runs import refine_ablation

    lines = records("refine_ablation.jsonl")
    return refine_ablation.page(lines[-1]) if lines else f"{MISSING.capitalize()}."


def comparison_table() -> str:
    record = last_results()
    return comparisons(record) if record else f"{MISSING.capitalize()}."


def cost() -> str:
    """Seconds a query and pairs a second, where a system was timed."""
    record = last_results()
    rows = []
    for part in record["collections"] if record else []:
        for system in part["systems"]:
            if (found := system["cost"])["p50_s"] is not None:
                memory = system["peak_memory_mib"].get("process")
                figures = [f"{found['p50_s']:.2f} s", f"{found['p95_s']:.2f} s", f"{found['pairs_per_s']:.1f}"]
                rows.append([TITLES[system["name"]], part["dataset"]["name"], *figures, f"{memory:,.0f} MiB"])
    heads = ["system", "collection", "p50 per query", "p95", "pairs/s", "peak memory of the process"]
    return table(heads, rows) if rows else f"{MISSING.capitalize()}."


def understanding() -> str:
    found = stages()
    if not found:
        return f"{MISSING.capitalize()}."
    rows = []
    for collection in dict.fromkeys(name for name, _ in found):
        for stage in STAGES:
            record = found.get((collection, stage))
            shown = [record["understanding"][name] if record else None for name in UNDERSTANDING]
            texts = [f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" if c else MISSING for c in shown]
            rows.append([collection, TITLES[stage], *texts])
    last = list(found.values())[-1]
    note = f"{last['prompts']} prompts of the last collection, half of them relevant, the rest from the first stage"
    heads = ["collection", "stage", "format success", "balanced accuracy", "AUC of the margin"]
    return f"{table(heads, rows)}\n\n{note}; {last['description']['backend']}, {made(last)}."


def expressiveness() -> str:
    found = stages()
    if not found:
        return f"{MISSING.capitalize()}."
    rows = []
    for collection in dict.fromkeys(name for name, _ in found):
        for stage in STAGES:
            values = found[collection, stage]["expressiveness"] if (collection, stage) in found else {}
            texts = [f"{values[name]:.4g}" if name in values else MISSING for name in EXPRESSIVENESS]
            rows.append([collection, TITLES[stage], *texts])
    return table(["collection", "stage", *(name.replace("_", " ") for name in EXPRESSIVENESS)], rows)


PAGES = {
    PAGE: {
        "findings": findings,
        "quality": quality_table,
        "float32": exact_table,
        "stages": stage_table,
        "ablation": ablation,
        "comparisons": comparison_table,
        "cost": cost,
        "understanding": understanding,
        "expressiveness": expressiveness,
    }
}
