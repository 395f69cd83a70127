"""Draws the pictures of docs/images that come from records, and the pipeline; no figure is typed by hand."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.tables.records import last_results, manifest
from benchmarks.tables.writer import DOCS, Tables, records
from prorank.evaluate.pictures import QualityPoint, quality_against_latency, score_histograms
from prorank.evaluate.significance import Interval
from prorank.evaluate.svg import Figure, linear_scale, ticks

STAGE_TITLES = {"base": "base, untrained", "warmup": "after warmup", "refined": "after refine"}
WARMUP_MEASURES = {
    "format_success": "format success",
    "balanced_accuracy_random": "balanced accuracy, random passages",
    "balanced_accuracy_hard": "balanced accuracy, BM25's passages",
}


def pipeline() -> str:
    """Training on the left, use on the right: what goes in and out of each part; narrow enough for a phone."""
    figure = Figure(420, 480, label="From a base to a reranker, and from a query to an order")
    training = [
        ("base", "a small language model"),
        ("warmup", 'GRPO: answer "0" or "1"'),
        ("refine", "lists teach finer margins"),
        ("evaluate", "intervals and paired tests"),
        ("export", "int8, ONNX, OpenVINO, GGUF"),
    ]
    use = [
        ("query, documents", "a search's best 100"),
        ("prompts", "one prefix, 100 ends"),
        ("one forward pass", 'logits of "0" and "1"'),
        ("margins", 'logit("1") - logit("0")'),
        ("order", "and probabilities to read"),
    ]
    for left, title, parts in ((4, "Training", training), (220, "Use", use)):
        figure.text(left, 20, title, "title")
        for place, (name, words) in enumerate(parts):
            top = 32 + 90 * place
            figure.rect(left, top, 196, 66, "box")
            figure.text(left + 98, top + 28, name, "title", "middle")
            figure.text(left + 98, top + 48, words, "small", "middle")
            if place:
                figure.path([(left + 98, top - 24), (left + 98, top - 6)], "guide")
                figure.path([(left + 93, top - 9), (left + 103, top - 9), (left + 98, top - 2)], "head", closed=True)
    return figure.svg()


def quality_speed() -> str:
    """The last results' averages against the mean of the collections' median latencies."""
    record = last_results()
    if record is None:
        return empty("no results are recorded yet")
    points = []
    for name in SHORT:
        figures = record["average"][name]
        timed = [system["cost"]["p50_s"] for part in record["collections"] for system in part["systems"]
                 if system["name"] == name]  # fmt: skip
        seconds = statistics.mean(timed) if timed and None not in timed else None
        interval = Interval(figures["mean"], figures["low"], figures["high"])
        points.append(QualityPoint(SHORT[name], interval, seconds))
    return quality_against_latency(points, "mean nDCG@10")


SHORT = {"bm25": "BM25", "minilm": "MiniLM", "refined": "ProRank"}
"""System -> its name in the picture."""


def scores() -> str:
    """Histograms of the last record of distributions.py, a row a stage, on one axis."""
    lines = records("distributions.jsonl")
    if not lines:
        return empty("no margins are recorded yet (python -m benchmarks.runs.distributions)")
    stages = lines[-1]["stages"]
    drawn = []
    for place, (stage, found) in enumerate(stages.items()):
        one = score_histograms(found["margins"], f"margin, {STAGE_TITLES.get(stage, stage)}")
        drawn.append(one.replace("<svg ", f'<svg y="{270 * place}" width="720" height="270" ', 1))
    return "\n".join(drawn)


def learning() -> str:
    """Held-out measures of both stages over the steps: of recorded runs, else at the ends of the shipped model's."""
    found = {line["stage"]: line for line in records("learning.jsonl")}
    charts = []
    base = (manifest() or {}).get("base_sha256")
    shipped = [line for line in records("training.jsonl") if line["base_sha256"] == base]
    if "warmup" in found:
        points = found["warmup"]["points"]
        charts.append(curves("warmup: steps", {title: [(p["step"], p[name]) for p in points if name in p]
                                               for name, title in WARMUP_MEASURES.items()}))  # fmt: skip
    else:
        ends = [(0, "before"), (shipped[0]["steps"], "after")]
        charts.append(curves("warmup: steps (measured at both ends)", {
            title: [(step, shipped[0][when][name]) for step, when in ends] for name, title in WARMUP_MEASURES.items()
        }))  # fmt: skip
    if "refine" in found:
        points = [(p["step"], p["nDCG@10"]) for p in found["refine"]["points"] if "nDCG@10" in p]
        level = found["refine"].get("first_stage", {}).get("nDCG@10")
    else:
        points, seen, level = [], 0, None
        for block in shipped[1:]:
            if block["held_out_queries"] == BLOCK_QUERIES:
                points += [(seen, block["before"]["nDCG@10"]), (seen + block["documents"], block["after"]["nDCG@10"])]
                level = block["first_stage"]["nDCG@10"]
            seen += block["documents"]
    axis = "refine: steps" if "refine" in found else "refine: documents seen, in blocks"
    charts.append(curves(axis, {"nDCG@10": points}, {"BM25": level} if level is not None else {}))
    return "\n".join(
        chart.replace("<svg ", f'<svg y="{300 * place}" width="420" height="300" ', 1)
        for place, chart in enumerate(charts)
    )


BLOCK_QUERIES = 24
"""Held-out queries per collection of the blocks that are compared; the others asked half as many."""


def curves(axis: str, series: dict[str, Sequence[tuple[float, float]]], levels: dict[str, float] | None = None) -> str:
    """Lines over steps, values between 0 and 1."""
    figure = Figure(420, 300, left=50, top=66, label=f"held-out measures, {axis}")
    last = max(step for points in series.values() for step, _ in points)
    x = linear_scale(0, last, figure.left, figure.right)
    y = linear_scale(0, 1, figure.bottom, figure.top)
    figure.y_axis(y, ticks(0, 1, 4), "held out")
    figure.x_axis(x, ticks(0, last, 4), axis)
    for place, (name, points) in enumerate(series.items()):
        figure.path([(x(step), y(value)) for step, value in points], f"s{place}")
        for step, value in points:
            figure.circle(x(step), y(value), 3, f"dot s{place}", f"{name}: {value:.3f} at {step:g}")
        figure.text(figure.left, 16 + 16 * place, name, f"name s{place}")
    for name, value in (levels or {}).items():
        figure.path([(figure.left, y(value)), (figure.right, y(value))], "guide")
        figure.text(figure.left, 32, f"{name} (dashed)", "name")
    return figure.svg()


def empty(words: str) -> str:
    figure = Figure(720, 60)
    figure.text(20, 34, words)
    return figure.svg()


PAGES: dict[object, Tables] = {
    DOCS / "images" / "pipeline.svg": {"pipeline": pipeline},
    DOCS / "images" / "quality-speed.svg": {"quality_speed": quality_speed},
    **({DOCS / "images" / "scores.svg": {"scores": scores}} if (DOCS / "images" / "scores.svg").exists() else {}),
    DOCS / "images" / "learning.svg": {"learning": learning},
}
