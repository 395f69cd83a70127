"""Every shipped warmup recipe is read as the command reads it; the page's tables are those of the records."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from prorank.cli import warmup as command
from prorank.config import read_config

REPO = Path(__file__).resolve().parents[3]
RECIPES = sorted((REPO / "recipes" / "warmup").glob("*.toml"))


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_is_complete_and_known(path):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    run = command.read_run(parser.parse_args(["--config", str(path)]))
    assert run.data
    assert run.out
    assert all(getattr(run.warmup, name) == value for name, value in read_config(path)["warmup"].items())


def test_tables_of_the_page_are_those_of_the_records():
    command = [sys.executable, "-m", "benchmarks.tables", "--check"]  # all pages
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
    assert found.returncode == 0, found.stdout + found.stderr
