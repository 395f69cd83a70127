"""What the scripts that write a page's tables from records have in common; it knows no page and no record's content.

A table stands in a page between `<!-- table NAME -->` and `<!-- end -->`. A script names its pages and, for each, the
functions that write its tables, and hands them to `main`:

    python benchmarks/evaluate_tables.py           # write
    python benchmarks/evaluate_tables.py --check   # say whether the page is as the records are
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
"""The committed records."""

Record = dict[str, Any]
Tables = Mapping[str, Callable[[], str]]
"""Name -> what writes that table."""


def main(pages: Mapping[Path, Tables], doc: str, argv: Sequence[str] | None = None) -> int:
    """The whole command; the exit code is 1 where --check finds a page out of date.

    Args:
        doc: the script's docstring; its first line is the help text.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is out of date")
    args = parser.parse_args(argv)
    stale = 0
    for page, tables in pages.items():
        before = page.read_text("utf-8")
        after = filled(before, tables)
        stale += before != after
        if args.check:
            print(f"{page.name}: {'as the records are' if before == after else 'out of date: make docs'}")
        else:
            page.write_text(after, "utf-8")
    return int(args.check and stale > 0)


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
