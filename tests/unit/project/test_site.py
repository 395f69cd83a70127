"""The site builds without a warning, so no link in it leads nowhere; every page has its place in the contents."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from testkit.scripts import script

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """docs/build_site.py as a module."""
    return script(REPO / "docs" / "build_site.py", "docs_site")


def test_every_page_has_its_place_and_llms_txt_names_it(site: ModuleType) -> None:
    listed = [name for names in site.CONTENTS.values() for name in names]
    assert len(listed) == len(set(listed))
    shown = {name for name in site.pages() if name.endswith(".md")} - {"index.md"}
    assert shown <= set(listed)
    told = (REPO / "docs" / "llms.txt").read_text("utf-8")
    for page in (REPO / "docs").rglob("*.md"):
        assert f"]({page.relative_to(REPO / 'docs').as_posix()})" in told, f"{page.name}: run make docs"


def test_links_out_of_docs_are_led_to_pages_and_files(site: ModuleType) -> None:
    def led(page: str, text: str) -> str:
        return site._LINK.sub(lambda link: site.led(link, page), text)

    assert led("architecture.md", "[a](../CONTRIBUTING.md#x)") == "[a](contributing.md#x)"
    assert led("tutorials/train.md", "[a](../../README.md)") == "[a](../index.md)"
    assert led("index.md", "[a](docs/engines.md) [b](https://x.y/z.md)") == "[a](engines.md) [b](https://x.y/z.md)"
    assert led("engines.md", "[c](../src/prorank/types.py)") == "[c](files/src/prorank/types.py)"


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    for module in (
        "sphinx",
        "furo",
        "myst_parser",
        "sphinx_copybutton",
        "haystack",
        "llama_index.core",
        "langchain_core",
    ):
        pytest.importorskip(module, reason=f"{module} is part of the dependency group 'docs' or 'clients'")
    path = os.pathsep.join(filter(None, [str(REPO / "src"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(REPO / "docs" / "build_site.py"), "--out", str(tmp_path / "site")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "api.html").read_text("utf-8")
    for name in ("Reranker", "Client", "TrainRun"):
        assert f'id="prorank.{name}"' in page
    assert (tmp_path / "site" / "llms-full.txt").stat().st_size > 100_000
