"""Writes the tables of docs/engines.md and of refine's speed from records; no figure there is typed by hand.

python benchmarks/engine_tables.py           # write
python benchmarks/engine_tables.py --check   # say whether the pages are as the records are
"""

from __future__ import annotations

import sys

from tables import HERE, Tables, made, main, records, table

DOCS = HERE.parent / "docs"


def engine() -> str:
    """Every backend of the last run of engine.py."""
    lines = records("engine.jsonl")
    if not lines:
        return "Not measured yet (`python benchmarks/engine.py`)."
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
    failed = [name for name, passed in last["verdict"].items() if not passed]
    return "\n".join(
        [
            table(["", "docs/s", f"against {first}", "peak memory", "of the peak", "Kendall's tau"], rows),
            "",
            f"The built-in reranker; {settings['data']}, {settings['repeats']} repeats of {settings['queries']} "
            f"queries, {settings['documents']} of BM25's top {settings['top_k']} each, whole prompts of at most "
            f"{settings['max_length']} tokens; medians. Tau is against torch in float32. {made(last)}",
            "",
            f"Wanted and not reached: {'; '.join(failed)}." if failed else "Everything that was wanted is reached.",
        ]
    )


def refine() -> str:
    """The sides of the last run of refine.py."""
    lines = records("refine.jsonl")
    if not lines:
        return "Not measured yet (`python benchmarks/refine.py`)."
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
            table(["side", "documents/s", "peak memory", "ours is"], rows),
            "",
            f"{settings['queries']} lists of {settings['list_size']} a step, documents of at most "
            f"{settings['document_tokens']} tokens, {settings['data']}; medians of {settings['repeats']} steps. "
            f"{made(last)}",
        ]
    )


PAGES: dict[object, Tables] = {
    DOCS / "engines.md": {"engine": engine},
    DOCS / "refine.md": {"speed": refine},
}

if __name__ == "__main__":
    sys.exit(main(PAGES, __doc__ or ""))  # type: ignore[arg-type]
