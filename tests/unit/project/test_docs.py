"""The generated documentation is what the code says, and links in the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from testkit.scripts import script

REPO = Path(__file__).resolve().parents[3]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py as a module."""
    return script(REPO / "docs" / "generate.py", "docs_generate")


def test_pages_are_up_to_date(generate: ModuleType) -> None:
    for path, text in generate.pages().items():
        assert path.is_file(), f"{path.relative_to(REPO)}: run make docs"
        assert path.read_text("utf-8") == text, f"{path.relative_to(REPO)} is out of date: run make docs"


def test_every_setting_is_explained(generate: ModuleType) -> None:
    page = generate.settings_page()
    assert "## ServeConfig" in page
    assert "## WarmupConfig" in page
    assert not [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
