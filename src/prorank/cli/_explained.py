"""The picture of an explanation in a terminal: each sentence of the best results with a bar as long as its weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prorank.types import RankResult

__all__ = ["explanation_tables", "printable"]

_BAR = 10


def explanation_tables(results: Sequence[RankResult]) -> list[Any]:
    """A rich table for each result that has sentences; bars of all of them have one scale.

    A full bar speaks for the document, a hatched one against it, so that it is readable without colours, too.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    told = [(rank, result) for rank, result in enumerate(results, 1) if result.sentences is not None]
    largest = max((abs(one.weight) for _, result in told for one in result.sentences or ()), default=0.0)
    tables = []
    for rank, result in told:
        title = f"{rank}. {printable(result.doc_id)[:40]}, margin {result.margin:+.2f}: what it owes to each sentence"
        table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
        table.add_column("weight", justify="right", no_wrap=True)
        table.add_column("bar", width=_BAR, no_wrap=True)
        table.add_column("sentence", overflow="fold")
        for one in result.sentences or ():
            length = round(_BAR * abs(one.weight) / largest) if largest else 0
            colour, mark = ("green", "\u2588") if one.weight > 0 else ("red", "\u2591")
            table.add_row(f"{one.weight:+.2f}", f"[{colour}]{mark * length}[/]", escape(printable(one.text)))
        tables.append(table)
    return tables


def printable(text: str) -> str:
    """One line without anything that a terminal would obey: a passage may hold escape codes."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
