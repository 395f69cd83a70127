"""Writes docs/performance.md's tables and picture, and refine's speed, from records; no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.runs import order_kept
from benchmarks.tables.writer import DOCS, Record, Tables, made, records, table
from prorank.evaluate.svg import Figure, linear_scale, log_scale, ticks


def engine() -> str:
    """Every backend of the last run of engine.py."""
    lines = records("engine.jsonl")
    if not lines:
        return "Not measured yet (`python -m benchmarks.runs.engine`)."
    last = lines[-1]
    settings, slowest = last["settings"], next(iter(last["sides"].values()))["pairs_per_second"]
    first = next(iter(last["sides"]))
    rows = [
        [
            name,
            f"{row['pairs_per_second']:.2f}",
            f"{row['pairs_per_second'] / slowest:.1f} x",
            f"{row['peak_mib']:.0f} MiB",
            f"{row['share_of_peak']:.0%}" if "share_of_peak" in row else "",
            f"{row['kendall_tau']:.3f}" if "kendall_tau" in row else "",
        ]
        for name, row in last["sides"].items()
    ]
    return "\n".join(
        [
            table(["", "docs/s", f"against {first}", "peak memory", "of the peak", "Kendall's tau"], rows),
            "",
            f"The built-in reranker; {settings['data']}, {settings['repeats']} repeats of {settings['queries']} "
            f"queries, {settings['documents']} of BM25's top {settings['top_k']} each, whole prompts of at most "
            f"{settings['max_length']} tokens; medians. Tau compares with torch in float32. Measured at {made(last)}.",
            "",
            targets(last),
        ]
    )


def order() -> str:
    """The sides of the last run of order_kept.py."""
    lines = records("order_kept.jsonl")
    if not lines:
        return "Not measured yet (`python -m benchmarks.runs.order_kept`)."
    last = lines[-1]
    return "\n".join(
        [
            order_kept.shown(last),
            "",
            f"{last['settings']['queries']} queries of each, BM25's top {last['settings']['top_k']}; speed: medians "
            f"over queries; differences with 95 % intervals. Measured at {made(last)}.",
            "",
            targets(last),
        ]
    )


def targets(record: Record) -> str:
    """Which of a record's targets were missed."""
    missed = [name for name, passed in record["verdict"].items() if not passed]
    return f"Targets missed: {'; '.join(missed)}." if missed else "All targets met."


SMOLLM2 = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3,
}  # fmt: skip
"""The built-in base's architecture."""


def roofline() -> str:
    """Operations and bytes of scoring 100 documents, counted; the least seconds at the last run's measured peaks."""
    from prorank.evaluate.speed import operations

    lines = records("engine.jsonl")
    if not lines:
        return "Not measured yet (`python -m benchmarks.runs.engine`)."
    peaks = lines[-1]["peak_gflop_per_second"]
    hidden, inner, layers = (SMOLLM2[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    keys = hidden * SMOLLM2["num_key_value_heads"] // SMOLLM2["num_attention_heads"]
    weights = layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner)
    rows = []
    for own in (64, 128, 256, 448):
        shared, alone = operations(SMOLLM2, 64, [own] * 100), 100 * operations(SMOLLM2, 0, [64 + own])
        products = 2 * weights * (64 + 100 * own)
        rows.append(
            [
                f"64 + {own}",
                f"{alone / 1e9:,.0f}",
                f"{shared / 1e9:,.0f}",
                f"{1 - products / shared:.0%}",
                *(f"{shared / 1e9 / peak:.1f} s" for peak in peaks.values()),
            ]
        )
    heads = ["prefix + own tokens", "GFLOP, whole prompts", "GFLOP, prefix once", "of these attention"]
    return "\n".join(
        [
            table([*heads, *(f"at the {name} peak" for name in peaks)], rows),
            "",
            f"100 documents, the built-in base: {weights / 1e6:.0f} million weights in its layers, read once "
            f"per batch ({weights * 2 / 1e6:.0f} MB in bfloat16, {weights / 1e6:.0f} in int8). Peaks: a matrix product "
            f"in the last run of engine.py, {', '.join(f'{name} {peak:.0f} GFLOP/s' for name, peak in peaks.items())}.",
        ]
    )


def refine() -> str:
    """The sides of the last run of refine.py."""
    lines = records("refine.jsonl")
    if not lines:
        return "Not measured yet (`python -m benchmarks.runs.refine`)."
    last = lines[-1]
    rows = [
        [
            side,
            f"{row['documents_per_second']:.2f}",
            f"{row['peak_mib']} MiB",
            "" if side == "ours" else f"{last['ratio'][side]:.2f} times faster",
        ]
        for side, row in last["sides"].items()
    ]
    settings = last["settings"]
    return "\n".join(
        [
            table(["side", "documents/s", "peak memory", "ours"], rows),
            "",
            f"{settings['queries']} lists of {settings['list_size']} per step, documents of at most "
            f"{settings['document_tokens']} tokens, {settings['data']}; medians of {settings['repeats']} steps. "
            f"Measured at {made(last)}.",
        ]
    )


def growth() -> str:
    """Cost against documents and against their length, of the last run of growth.py."""
    lines = records("growth.jsonl")
    if not lines:
        return "Not measured yet (`python -m benchmarks.runs.growth`)."
    last = lines[-1]
    rows = [
        [
            name,
            f"{point['documents']:,}",
            f"{point['tokens']:.0f}",
            f"{point['seconds']:.2f} s",
            f"{point['documents'] / point['seconds']:.1f}",
            f"{point['peak_mib']:.0f} MiB",
        ]
        for name, side in last["sides"].items()
        for point in (*side["documents"], *side["tokens"])
    ]
    ratios = "; ".join(f"{name} {side['ratio']:.2f} times" for name, side in last["sides"].items())
    return "\n".join(
        [
            "![Seconds against documents and against tokens](images/growth.svg)",
            "",
            table(["", "documents", "own tokens of each", "time", "docs/s", "peak memory so far"], rows),
            "",
            f"One query. A document in the longest list costs, relative to one of 100: {ratios}. Measured "
            f"at {made(last)}.",
        ]
    )


def growth_picture() -> str:
    """The same as two charts side by side, for docs/images/growth.svg."""
    lines = records("growth.jsonl")
    if not lines:
        return ""
    sides = lines[-1]["sides"]
    charts = (
        chart(sides, "documents", "documents", "documents", log_scale, [10, 100, 1000, 10_000]),
        chart(sides, "tokens", "tokens", "own tokens of 32 documents", linear_scale, [0, 100, 200, 300, 400]),
    )
    return "\n".join(
        drawn.replace("<svg ", f'<svg x="{360 * place}" width="360" height="300" ', 1)
        for place, drawn in enumerate(charts)
    )


def chart(sides: Record, kind: str, key: str, name: str, scale_of: Any, marks: Sequence[float]) -> str:
    """Seconds over one of the two sweeps; where both axes are logarithmic, a dashed line grows in proportion."""
    figure = Figure(360, 300, left=62, label=f"Seconds against {name}")
    points = {side: [(p[key], p["seconds"]) for p in found[kind]] for side, found in sides.items()}
    xs, ys = zip(*(point for found in points.values() for point in found), strict=True)
    logarithmic = scale_of is log_scale
    proportional = {side: found[-1][1] * found[0][0] / found[-1][0] for side, found in points.items()}
    low = min(*ys, *proportional.values()) if logarithmic else 0
    x = scale_of(min(xs) if logarithmic else 0, max(xs), figure.left, figure.right)
    y = scale_of(low, max(ys), figure.bottom, figure.top)
    heights = [10.0**n for n in range(-2, 5) if low <= 10.0**n <= max(ys)] if logarithmic else ticks(0, max(ys))
    figure.y_axis(y, heights, "seconds")
    figure.x_axis(x, [mark for mark in marks if mark <= max(xs)], name)
    for number, (side, found) in enumerate(points.items()):
        if logarithmic:
            (most, seconds), (fewest, _) = found[-1], found[0]
            figure.path([(x(most), y(seconds)), (x(fewest), y(proportional[side]))], "guide")
        figure.path([(x(a), y(b)) for a, b in found], f"s{number}")
        for a, b in found:
            figure.circle(x(a), y(b), 3, f"dot s{number}", f"{side}: {a:g} {name}, {b:g} s")
        figure.text(figure.left + 10, figure.top + 14 + 16 * number, side, f"name s{number}")
    return figure.svg()


PAGES: dict[object, Tables] = {
    DOCS / "performance.md": {"engine": engine, "order": order, "roofline": roofline, "growth": growth},
    DOCS / "images" / "growth.svg": {"growth": growth_picture},
    DOCS / "refine.md": {"speed": refine},
}
