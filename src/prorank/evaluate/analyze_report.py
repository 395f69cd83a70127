"""``analysis.md`` and ``analysis.html``: models side by side, every measure with its definition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prorank.evaluate import expressiveness, understanding
from prorank.evaluate.analyze import Analysis
from prorank.evaluate.page import Section, render_page
from prorank.evaluate.pictures import reliability, score_histograms
from prorank.evaluate.report import markdown_table
from prorank.files import write_atomic

__all__ = ["analysis_sections", "definitions", "write_analysis"]

_EXPRESSIVENESS: dict[str, Callable[..., Any]] = {
    "distinct_share": expressiveness.distinct_share,
    "tie_rate": expressiveness.tie_rate,
    "score_entropy": expressiveness.score_entropy,
    "spread": expressiveness.spread,
    "within_share": expressiveness.within_share,
    "d_prime": expressiveness.d_prime,
    "auc": understanding.auc,
    "query_auc": expressiveness.query_auc,
    "calibration_error": expressiveness.expected_calibration_error,
    "effective_rank": expressiveness.effective_rank,
    "mean_cosine": expressiveness.mean_cosine,
}


def definitions() -> dict[str, str]:
    """Measure -> its definition, the first paragraph of the docstring of the function that computes it."""
    functions: Mapping[str, Callable[..., Any]] = {**understanding.MEASURES, **_EXPRESSIVENESS}
    found = {}
    for name, function in functions.items():
        text = (inspect.getdoc(function) or "").split("\n\n")[0]
        found[name] = " ".join(text.split()).replace(":func:", "").replace("`", "")
    return found


def write_analysis(title: str, analyses: Sequence[Analysis], record: Mapping[str, Any], out: Path) -> None:
    """Write both files into ``out``.

    Args:
        record: one of the records written, for the footer.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary = [_sentence(analysis) for analysis in analyses]
    sections = analysis_sections(analyses)
    environment = record["environment"]
    dirty = " with uncommitted changes" if record["dirty"] else ""
    footer = (
        f"{record['time']}; commit {str(record['commit'])[:12]}{dirty}; {environment['cpu']}, "
        f"{environment['cores']} cores; " + ", ".join(f"{name} {value}" for name, value in record["sample"].items())
    )
    write_atomic(out / "analysis.html", render_page(title, summary, sections, footer))
    parts = [f"# {title}", "", *(f"- {line}" for line in summary)]
    for section in sections:
        if section.rows:
            parts += ["", f"## {section.title}", "", section.text, "", markdown_table(section.headers, section.rows)]
    write_atomic(out / "analysis.md", "\n".join([*parts, "", footer, ""]))


def _sentence(analysis: Analysis) -> str:
    found = analysis.understanding
    form, right, chance = (found[name] for name in ("format_success", "accuracy", "margin_auc"))
    known = "tells" if chance[1] > 0.5 else "is not shown to tell"
    return (
        f"{analysis.name} answers in form {form[0]:.1%} and rightly {right[0]:.1%} of the time; its margin {known} "
        f"relevant from irrelevant (AUC {chance[0]:.3f} [{chance[1]:.3f}, {chance[2]:.3f}])."
    )


def analysis_sections(analyses: Sequence[Analysis]) -> list[Section]:
    """The page's sections for models side by side; all were asked the same sample."""
    words = definitions()
    names = [analysis.name for analysis in analyses]
    prompts = len(analyses[0].prompts)
    candidates = sum(map(len, analyses[0].margins.values()))
    return [
        Section(
            "Prompt understanding",
            f"{prompts} prompts, half of them relevant; 95% bootstrap intervals over prompts.",
            ["measure", *names],
            [
                [name, *(_interval(analysis.understanding[name]) for analysis in analyses)]
                for name in understanding.MEASURES
            ],
            [(f"{a.name}: margins of the prompts", score_histograms(_prompted(a))) for a in analyses],
        ),
        Section(
            "Most frequent malformed answers",
            "Greedy, at most 4 tokens, special tokens spelled out.",
            ["model", "answer", "times", "share"],
            [
                [analysis.name, repr(text), str(count), f"{count / max(prompts, 1):.1%}"]
                for analysis in analyses
                for text, count in analysis.malformed
            ],
        ),
        Section(
            "Expressiveness",
            f"Scores of {candidates} first-stage candidates; states after the last token of the {prompts} prompts.",
            ["measure", *names],
            [
                [name, *(_number(analysis.expressiveness.get(name)) for analysis in analyses)]
                for name in _EXPRESSIVENESS
            ],
            [
                *((f"{a.name}: margins of the candidates", score_histograms(a.margins)) for a in analyses),
                *(
                    (f"{a.name}: reliability; the size of a point is its share of pairs", reliability(a.reliability))
                    for a in analyses
                ),
            ],
        ),
        Section("Definitions", headers=["measure", "definition"], rows=list(words.items())),
    ]


def _prompted(analysis: Analysis) -> dict[str, list[float]]:
    return {
        "relevant": [prompt.margin for prompt in analysis.prompts if prompt.relevant],
        "negative": [prompt.margin for prompt in analysis.prompts if not prompt.relevant],
    }


def _interval(found: tuple[float, float, float]) -> str:
    value, low, high = found
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
