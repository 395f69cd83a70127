"""``report.md`` and ``report.html`` of an evaluation: the same tables; the page has pictures too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prorank.evaluate.page import Section, render_page
from prorank.evaluate.pictures import QualityPoint, gain_bars, intervals, quality_against_latency, score_histograms
from prorank.evaluate.results import Evaluation, Row, Tested
from prorank.files import write_atomic

__all__ = ["markdown_table", "sentence", "shown_p", "write_report"]

ALPHA = 0.05


def write_report(result: Evaluation, out: Path) -> None:
    """Write both files."""
    title = f"Reranking {result.collection.name} {result.collection.split or ''}".strip()
    summary = _summary(result)
    sections = _sections(result)
    footer = _footer(result)
    write_atomic(out / "report.md", _markdown(title, summary, sections, footer))
    write_atomic(out / "report.html", render_page(title, summary, sections, footer))


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, numbers are right-aligned."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(headers) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [list(headers), rule, *escaped])


def sentence(name: str, other: str, measure: str, tested: Tested, level: float = 0.95) -> str:
    """One plain sentence about a comparison, which says it when nothing was shown."""
    mean, low, high = tested.comparison.difference
    facts = f"{mean:+.4f} {measure} [{low:+.4f}, {high:+.4f}] at {level:.0%}, p = {shown_p(tested.p_holm)}"
    if tested.p_holm >= ALPHA:
        return f"{name} is not shown to differ from {other}: {facts}."
    return f"{name} is {'better' if mean > 0 else 'worse'} than {other}: {facts}."


def _summary(result: Evaluation) -> list[str]:
    by = result.options.measures[0]
    lines = [
        sentence(row.name, other, by, compared[by], result.options.level)
        for row in result.rows
        for other, compared in row.versus.items()
        if row is not result.rows[0]
    ]
    missing = result.rows[0].measured.missing
    if missing:
        lines.append(f"{len(missing)} of {len(result.collection.qrels)} queries have no candidates and count 0.")
    if own := result.collection.own_documents:
        lines.append(
            f"{len(own)} of {len(result.collection.qrels)} queries are documents of the collection too, under the same "
            "id; these documents are left out of every list (BEIR's ignore_identical_ids)."
        )
    return lines


def _sections(result: Evaluation) -> list[Section]:
    rows, by = result.rows, result.options.measures[0]
    timed = any(row.outcome.seconds for row in rows)
    gains = {
        row.name: {q: value - rows[0].measured.values[by][q] for q, value in row.measured.values[by].items()}
        for row in rows[1:]
    }
    limit = max((abs(g) for found in gains.values() for g in found.values()), default=1.0) or 1.0
    return [
        Section(
            "Measures",
            f"Means over {len(result.collection.qrels)} queries with {result.options.level:.0%} bootstrap intervals.",
            ["system", by, "interval", *result.options.measures[1:], "ties"],
            [_measures(row, result.options.measures) for row in rows],
            [(f"{by} with its interval", intervals([(row.name, row.intervals[by]) for row in rows], by))],
            note="Ties are documents whose score equals that of one ranked before them; they keep the first stage's "
            "order. Overlapping intervals do not mean that two systems are equal: the paired test below decides.",
        ),
        Section(
            "Paired comparisons",
            "Difference of the means, its bootstrap interval, and the p-value of the two-sided paired randomisation "
            "test, Holm-corrected over the systems compared.",
            ["system", "against", f"difference in {by}", "interval", "p", "p (Holm)", "better / worse / equal"],
            [
                _tested(row.name, other, compared[by])
                for row in rows
                for other, compared in row.versus.items()
            ],
            note="The same by the other measures is in record.jsonl.",
        ),
        Section(
            "Cost",
            "Time to score one query's candidates, tokenisation included.",
            ["system", "p50", "p95", "pairs/s", "tokens/s", "peak memory"],
            [_cost(row) for row in rows if row.outcome.seconds] if timed else [],
            [(f"{by} against latency; dashed lines were not timed", _quality(rows, by))] if timed else [],
        ),
        Section(
            "Gain over the first stage, query by query",
            pictures=[(name, gain_bars(found, by, limit)) for name, found in gains.items()],
        ),
        Section(
            "Distribution of scores",
            "A reranker that orders well keeps relevant and other candidates apart.",
            pictures=[
                (row.name, score_histograms(_groups(result, row))) for row in rows if row.outcome.seconds
            ],
        ),
    ]  # fmt: skip


def _measures(row: Row, names: Sequence[str]) -> list[str]:
    mean, low, high = row.intervals[names[0]]
    cells = [f"{row.intervals[name].mean:.4f}" for name in names[1:]]
    return [row.name, f"{mean:.4f}", f"[{low:.4f}, {high:.4f}]", *cells, str(sum(row.outcome.ties.values()))]


def _tested(name: str, other: str, tested: Tested) -> list[str]:
    mean, low, high = tested.comparison.difference
    found = tested.comparison
    counts = f"{found.better} / {found.worse} / {found.equal}"
    return [name, other, f"{mean:+.4f}", f"[{low:+.4f}, {high:+.4f}]", shown_p(found.p), shown_p(tested.p_holm), counts]


def _cost(row: Row) -> list[str]:
    cost = row.outcome.cost()
    cells = [
        _seconds(cost["p50_s"]),
        _seconds(cost["p95_s"]),
        _count(cost["pairs_per_s"]),
        _count(cost["tokens_per_s"]),
    ]
    memory = ", ".join(f"{value:,.0f} MiB {part}" for part, value in row.outcome.peak_memory.items())
    return [row.name, *cells, memory or "–"]


def _quality(rows: Sequence[Row], by: str) -> str:
    points = [QualityPoint(row.name, row.intervals[by], row.outcome.cost()["p50_s"]) for row in rows]
    return quality_against_latency(points, by)


def _groups(result: Evaluation, row: Row) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {"relevant": [], "not relevant or not judged": []}
    relevant, other = groups.values()
    for query_id, documents in row.outcome.run.items():
        judged = result.collection.qrels.get(query_id, {})
        for doc_id, margin in documents.items():
            (relevant if judged.get(doc_id, 0) >= result.options.min_relevance else other).append(margin)
    return groups


def _markdown(title: str, summary: Sequence[str], sections: Sequence[Section], footer: str) -> str:
    parts = [f"# {title}", *(f"- {line}" for line in summary)]
    for section in sections:
        if section.rows:
            parts += ["", f"## {section.title}", "", section.text, "", markdown_table(section.headers, section.rows)]
            if section.note:
                parts += ["", section.note]
    return "\n".join([*parts, "", footer, ""])


def _footer(result: Evaluation) -> str:
    record = result.record
    environment = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    dirty = " with uncommitted changes" if record["dirty"] else ""
    return (
        f"{result.first_stage}, top {result.top_k}; {len(result.collection.documents)} documents; "
        f"{record['time']}; commit {str(record['commit'])[:12]}{dirty}; {environment['cpu']}, "
        f"{environment['cores']} cores; Python {environment['python']}, {versions}. Details: record.jsonl."
    )


def shown_p(p: float) -> str:
    """A p-value with four digits, or as a power of ten where these would be 0."""
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.1e}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.2f} ms"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
