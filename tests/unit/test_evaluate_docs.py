"""docs/evaluation.md is as the docstrings and the committed records are; the flags it names exist."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("evaluate_tables", REPO / "benchmarks" / "evaluate_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tables):
    page = tables.PAGE.read_text("utf-8")
    assert tables.filled(page) == page, "run: python benchmarks/evaluate_tables.py"


def test_every_flag_named_on_the_page_exists(tables):
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
    page = re.sub(r"<!-- table.*?<!-- end -->", "", tables.PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page)) <= known
