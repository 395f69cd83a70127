"""docs/evaluation.md is as the docstrings and the committed records are; the flags it names exist."""

from __future__ import annotations

import argparse

from benchmarks.tables import evaluate as evaluate_tables
from benchmarks.tables.writer import filled


def test_the_page_is_up_to_date():
    page = evaluate_tables.PAGE.read_text("utf-8")
    assert filled(page, evaluate_tables.PAGES[evaluate_tables.PAGE]) == page, (
        "run: python -m benchmarks.tables.evaluate"
    )


def test_every_flag_named_on_the_page_exists():
    """Flags of evaluate, compare, analyze and data; those of other programs stand in their own lines."""
    import re

    from prorank.cli.main import build_parser

    known = {"--check", "--port"}
    for command in ("evaluate", "compare", "analyze", "data"):
        parser = build_parser(command)
        parsers = [parser]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        known |= {flag for one in parsers for action in one._actions for flag in action.option_strings}
    page = re.sub(r"<!-- table.*?<!-- end -->", "", evaluate_tables.PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page)) <= known
