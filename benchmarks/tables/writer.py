"""Write tables into pages from committed records; it knows no page and no record's content.

A table stands in a page between `<!-- table NAME -->` and `<!-- end -->`. The modules beside this one name their pages
in ``PAGES`` and, for each, the functions that write its tables; `python -m benchmarks.tables` runs them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs"
RESULTS = REPO / "benchmarks" / "results"
"""The committed records."""

Record = dict[str, Any]
Tables = Mapping[str, Callable[[], str]]
"""Name -> what writes that table."""


def write(pages: Mapping[Path, Tables], *, check: bool) -> int:
    """Fill every page's tables (or only compare them); how many pages were out of date."""
    stale = 0
    for page, tables in pages.items():
        before = page.read_text("utf-8")
        after = filled(before, tables)
        stale += before != after
        if check and before != after:
            print(f"{page.name} is out of date: run make docs")
        elif before != after:
            page.write_text(after, "utf-8")
            print(f"{page.name} written")
    return stale


def filled(text: str, tables: Tables) -> str:
    """The page with every table replaced.

    Raises:
        ValueError: the page has a table that nothing writes.
    """

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        if name not in tables:
            raise ValueError(f"<!-- table {name} -->: nothing writes it (known: {', '.join(tables)})")
        return f"<!-- table {name} -->\n\n{tables[name]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->.*?<!-- end -->", replaced, text, flags=re.DOTALL)


def records(name: str) -> list[Record]:
    """The lines of a file of committed records, oldest first; none where there is no such file."""
    path = RESULTS / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def made(record: Record) -> str:
    """On what and at which commit a record was made."""
    environment = record["environment"]
    dirty = " with uncommitted changes" if record["dirty"] else ""
    return f"commit {record['commit'][:12]}{dirty}, {environment['cpu']}, {environment['cores']} cores"
