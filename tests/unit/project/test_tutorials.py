"""Every block of the tutorials runs as it stands, with a tiny model and few steps, or says why it does not."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from prorank.cli.main import COMMANDS, build_parser, main
from testkit.warmup import WORDS, make_base

REPO = Path(__file__).resolve().parents[3]
TUTORIALS = sorted((REPO / "docs" / "tutorials").glob("*.md"))
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md")), *TUTORIALS]
FEW_STEPS = [
    "--warmup.steps", "2", "--warmup.queries_per_step", "2", "--warmup.held_out_queries", "2",
    "--warmup.eval_every", "2",
    "--warmup.document_tokens", "12", "--warmup.query_tokens", "12", "--warmup.lora_rank", "4",
    "--warmup.precision", "float32", "--refine.steps", "2", "--refine.queries_per_step", "2", "--refine.list_size", "4",
    "--refine.hard_negatives", "2", "--refine.held_out_queries", "2", "--refine.eval_every", "2",
    "--refine.document_tokens", "12", "--refine.query_tokens", "12", "--refine.precision", "float32",
    "--test-top-k", "10", "--eval-top-k", "5", "--threads", "1", "--device", "cpu",
]  # fmt: skip
"""What `prorank train` gets besides what the page says."""
FEW_QUERIES = ["--max-queries", "4", "--max-length", "320", "--threads", "1", "--device", "cpu"]
"""`prorank evaluate` likewise."""


class Block(NamedTuple):
    mark: str
    """The comment above it, such as ``file: NAME`` or ``not run: why``."""
    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        return re.sub(r"\\\n\s*", "", self.text).strip().splitlines()


def blocks(page: Path) -> list[Block]:
    pattern = r"(?:<!-- ([^>]*) -->\n)?^```(\w*)\n(.*?)^```$"
    found = re.findall(pattern, page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(*one) for one in found]


def test_the_tutorials_are_there() -> None:
    assert {page.stem for page in TUTORIALS} >= {"rerank", "train", "report", "serve"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_every_command_on_every_page_is_one(page: Path) -> None:
    """Names of commands and flags, and values of the right kind; nothing runs."""
    for block in blocks(page):
        for line in block.lines:
            found = re.match(r"(?:.*\| |[A-Z]+=\S+ )?prorank (\w+)( .*|$)", line)
            if not found or found[1] not in COMMANDS or "..." in line.replace('"..."', ""):
                continue
            words = shlex.split(re.split(r" > | \| | &$", found[2])[0], comments=True)
            try:
                build_parser(found[1]).parse_args(words)
            except SystemExit:
                pytest.fail(f"{page.name}: {line}")


@pytest.fixture
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, where a tiny model takes the place of the default one."""
    tiny = make_base(tmp_path_factory.getbasetemp() / "tutorials-base")
    monkeypatch.setattr("prorank.reranker.default_model", lambda: str(tiny))
    monkeypatch.setattr(sys.modules[__name__], "FEW_STEPS", [*FEW_STEPS, "--model", str(tiny)])
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "passages.txt").write_text("apple apple\nbear bear\n")  # of another page
    return folder


@pytest.fixture
def server(here: Path) -> Iterator[Callable[[], str]]:
    """Starts a server where a page asks for one, with the model of ``here``; its address."""
    assert here.is_dir()
    pytest.importorskip("fastapi", reason="fastapi is part of the extra 'serve'")
    from live_server import Live

    from prorank.reranker import Reranker
    from prorank.serve.app import create_app
    from prorank.serve.config import ServeConfig

    running: list[Live] = []

    def start() -> str:
        if not running:
            running.append(Live(create_app(Reranker.from_pretrained(device="cpu"), ServeConfig())))
        return running[0].url

    yield start
    for one in running:
        one.stop()


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_block_runs(page: Path, here: Path, server: Callable[[], str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        kind, _, rest = block.mark.partition(": ")
        if kind == "not run":
            assert rest, "say why"
        elif kind == "file":
            write(here / rest, block.text)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(with_server(block.text, server), page.name, "exec"), names)
            assert "print" not in block.text or printed.getvalue().strip()
        elif block.language == "":
            for line in block.lines:
                run(with_server(line, server), here)
        else:
            assert block.language in ("text", "toml"), f"{page.name}: a block of {block.language} says nothing"


def write(path: Path, text: str) -> None:
    """The page's file; one to train on becomes long enough for that."""
    path.write_text(text, "utf-8")
    if path.suffix == ".jsonl":
        words = [(WORDS[i % 10], WORDS[(i + 1) % 10]) for i in range(60)]
        more = [{"query": f"{a} {i}", "positive": f"{a} {a}", "negative": f"{b} {b}"} for i, (a, b) in enumerate(words)]
        path.write_text(text + "\n".join(map(json.dumps, more)) + "\n", "utf-8")


def with_server(text: str, server: Callable[[], str]) -> str:
    return text.replace("http://127.0.0.1:8080", server()) if "http://127.0.0.1:8080" in text else text


def run(line: str, here: Path) -> None:
    """One line of a shell: prorank within this process, curl as it is."""
    left, _, right = line.rpartition(" | ")
    words = shlex.split(right, comments=True)
    if words[0] == "curl":
        answer = subprocess.run(words, capture_output=True, check=True, text=True).stdout
        assert json.loads(answer)["results"]
        return
    assert words[0] == "prorank", f"{line}: say why it is not run"
    if words[1] == "serve":
        build_parser("serve").parse_args(words[2:])
        return
    if left:
        assert left.startswith("cat ")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((here / left[4:]).read_bytes())))
            assert main(words[1:]) == 0
        return
    more = {"train": FEW_STEPS, "evaluate": FEW_QUERIES}.get(words[1], [])
    assert main([*words[1:], *more]) == 0, line
