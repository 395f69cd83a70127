"""README's tables: quality, speed beside the peers, our own engine, early exits; the last record of each."""

from __future__ import annotations

import textwrap

from benchmarks.tables import records as results_records
from benchmarks.tables.writer import REPO, Record, records, table

NAMES = {"dl19": "TREC DL19", "nfcorpus": "NFCorpus", "scifact": "SciFact"}
"""Collections by the names that people know, short passages first."""


SYSTEMS = {"bm25": "BM25", "minilm": "MiniLM bi-encoder", "refined": "ProRank"}
"""What the quality table shows, in this order."""


def quality() -> str:
    """nDCG@10 over BM25's top 100: the last results."""
    record = results_records.last_results()
    if record is None:
        return "Not measured."
    asked = {part["dataset"]["name"]: part["dataset"]["queries"] for part in record["collections"]}
    places = [name for name in ("nfcorpus", "scifact", "dl19") if name in asked]
    cells = results_records.cells(record)
    rows = [[title, *(f"{cells[name][place]['mean']:.3f}" for place in places)] for name, title in SYSTEMS.items()]
    p = ", ".join(f"{cells['refined'][place]['versus']['bm25']['p_holm']:.1g}" for place in places)
    rows.append(["p against BM25 (Holm)", *p.split(", ")])
    return table(["nDCG@10", *(f"{NAMES[place]}, {asked[place]} queries" for place in places)], rows)


def scoring() -> str:
    """Speed and memory beside the peers: the last record of each collection."""
    last = {record["settings"]["data"]: record for record in records("scoring.jsonl")}
    shown = {name: last[name] for name in NAMES if name in last}
    heads = ["", *(f"{NAMES[name]}, pairs/s" for name in shown), "peak memory"]
    rows = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    first = next(iter(shown.values()))
    for side in sorted(first["sides"], key=lambda side: first["sides"][side]["pairs_per_second"]):
        cells = [side.replace("CrossEncoder", "sentence-transformers CrossEncoder")]
        for record in shown.values():
            times = record["ratios"].get(f"{side}: times mxbai-rerank's speed")
            cells.append(f"{record['sides'][side]['pairs_per_second']:.2f}" + (f" ({times:.2f} x)" if times else ""))
        memory = max(record["sides"][side]["peak_mib"] for record in shown.values())
        rows.append(f"| {' | '.join([*cells, f'{memory / 1024:.1f} GiB'])} |")
    equal = max(value for r in shown.values() for name, value in r["ratios"].items() if "difference" in name)
    samples = "; ".join(f"{NAMES[name]}: {_sample(record)}" for name, record in shown.items())
    environment, settings = first["environment"], first["settings"]
    note = (
        f"SmolLM2-135M with the same weights in every row; in brackets, the speed-up over mxbai-rerank. {samples}. "
        f"Whole prompts of at most {settings['max_length']} tokens; medians of {settings['repeats']} repeats on "
        f"{environment['cores']} cores ({environment['cpu']}). With the same prompt, fp32 scores are equal (largest "
        f"difference {equal:.0e}). Reproduce with `python -m benchmarks.runs.scoring`."
    )
    rows += ["", *textwrap.wrap(note, 120, break_long_words=False, break_on_hyphens=False)]
    return "\n".join(rows)


def _sample(record: Record) -> str:
    settings = record["settings"]
    part = "" if settings["documents"] == settings["top_k"] else f"{settings['documents']} of "
    queries = settings["queries"] * settings["repeats"]
    return f"{queries} queries, {part}BM25's top {settings['top_k']}, commit {str(record['commit'])[:7]}"


def order_kept() -> str:
    """What ``cascade="fast"`` saves and costs, of the last record."""
    last = records("order_kept.jsonl")[-1]
    parts = []
    for name, sides in last["collections"].items():
        fast = sides["native int8, fast"]
        low, high = fast["difference"]["low"], fast["difference"]["high"]
        parts.append(
            f"{NAMES[name]} {fast['times_reference']:.2f} times as fast, {fast['top_kept']:.0%} of the exact top 10, "
            f"nDCG@10 {fast['difference']['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
        )
    text = (
        'If only the top matters, `rank(..., cascade="fast")` stops hopeless documents at an early layer: '
        f"{'; '.join(parts)} (native-int8, {last['settings']['queries']} queries each, BM25's top "
        f"{last['settings']['top_k']})."
    )
    return "\n".join(textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))


def engine() -> str:
    """How fast our own engine is, and how close to float32: the last record."""
    last = records("engine.jsonl")[-1]
    sides, settings, environment = last["sides"], last["settings"], last["environment"]
    ours, bf16 = sides["native int8"], sides["torch bf16"]
    times = {name: last["ratios"][f"native int8: times {name}'s speed"] for name in ("mxbai-rerank", "llama.cpp q8_0")}
    text = (
        "`prorank export --to native-int8 --out DIR` writes the model for our own int8 engine (x86 CPUs since AVX2, "
        f"64-bit ARM): {ours['pairs_per_second']:.1f} pairs/s on NFCorpus in {ours['peak_mib']:.0f} MiB, "
        f"{times['mxbai-rerank']:.1f} times mxbai-rerank and {times['llama.cpp q8_0']:.1f} times llama.cpp's Q8_0 in "
        f"the same run. Its orders match float32's with a Kendall's tau of {ours['kendall_tau']:.3f} (PyTorch in "
        f"bfloat16: {bf16['kendall_tau']:.3f}). {settings['repeats'] * settings['queries']} queries, "
        f"{settings['documents']} of BM25's top {settings['top_k']}, {environment['cores']} cores "
        f"({environment['cpu']}), commit {last['commit'][:7]}."
    )
    return "\n".join(textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))


PAGES = {REPO / "README.md": {"quality": quality, "scoring": scoring, "engine": engine, "order_kept": order_kept}}
