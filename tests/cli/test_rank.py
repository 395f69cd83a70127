"""``prorank rank`` and ``prorank models`` as a user runs them: real processes for start-up, main() for the rest."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prorank.cli.main import COMMANDS, build_parser, main

PASSAGES = ["A germ meets the immune system.", "Bread needs flour.", 'Vaccines, and "quotes"\ttabs']


@pytest.fixture
def rank(tiny_llama_dir: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``prorank rank --model TINY ...``: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["rank", "--model", str(tiny_llama_dir), "--dtype", "float32", *words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write(path: Path, form: str) -> Path:
    """The three passages in a file of each format."""
    file = path / f"passages{form}"
    if form == ".txt":
        file.write_text("\n".join(PASSAGES) + "\n")
    elif form == ".jsonl":
        file.write_text("\n".join(json.dumps({"_id": f"d{i}", "text": t}) for i, t in enumerate(PASSAGES)))
    elif form == ".jsonl.gz":
        file.write_bytes(gzip.compress("\n".join(json.dumps(t) for t in PASSAGES).encode()))
    elif form == ".json":
        file.write_text(json.dumps(PASSAGES))
    elif form == ".tsv":
        file.write_text("".join(f"d{i}\t{t.replace(chr(9), ' ')}\n" for i, t in enumerate(PASSAGES)))
    elif form == ".csv":
        import csv

        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([["id", "text"], *([f"d{i}", t] for i, t in enumerate(PASSAGES))])
    elif form == ".parquet":
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        parquet.write_table(arrow.table({"id": ["d0", "d1", "d2"], "text": PASSAGES}), file)
    return file


@pytest.mark.parametrize("form", [".txt", ".jsonl", ".jsonl.gz", ".json", ".tsv", ".csv", ".parquet"])
def test_every_format_is_read(rank: Any, tmp_path: Path, form: str) -> None:
    code, out, err = rank("--query", "germs", "--documents", str(write(tmp_path, form)), "--format", "jsonl")
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert {row["index"] for row in rows} == {0, 1, 2}
    wanted = [t.replace("\t", " ") for t in PASSAGES] if form == ".tsv" else PASSAGES
    assert all(row["text"] == wanted[row["index"]] for row in rows)
    assert list(rows[0]) == ["rank", "index", "doc_id", "margin", "probability", "text"]


@pytest.mark.parametrize("lines", ["\n".join(PASSAGES), "\n".join(json.dumps({"text": t}) for t in PASSAGES)])
def test_standard_input(rank: Any, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    code, out, _ = rank("--query", "germs", "--top-k", "2")
    assert code == 0
    assert len(out.splitlines()) == 2


def test_trec_in_and_out(rank: Any, tmp_path: Path) -> None:
    corpus = write(tmp_path, ".jsonl")
    (tmp_path / "run.trec").write_text("q1 Q0 d2 1 9 x\nq1 Q0 d0 2 8 x\nq2 Q0 d1 1 3 x\n")
    (tmp_path / "queries.tsv").write_text("q1\tgerms\nq2\tbread\n")
    words = ["--run", str(tmp_path / "run.trec"), "--corpus", str(corpus), "--queries", str(tmp_path / "queries.tsv")]
    code, out, _ = rank(*words, "--format", "trec")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert sorted((row[0], row[2]) for row in rows) == [("q1", "d0"), ("q1", "d2"), ("q2", "d1")]
    assert [row[3] for row in rows] == ["1", "2", "1"]
    assert all(len(row) == 6 for row in rows)


def test_trec_output_is_what_our_reader_reads(rank: Any, tmp_path: Path) -> None:
    from prorank.data import read_run

    words = ["--query", "germs", "--query-id", "q7", "--documents", str(write(tmp_path, ".csv"))]
    code, out, _ = rank(*words, "--format", "trec", "--tag", "my run")
    _, rows, _ = rank(*words, "--format", "jsonl")
    (tmp_path / "out.trec").write_text(out)
    margins = {row["doc_id"]: row["margin"] for row in map(json.loads, rows.splitlines())}
    run = read_run(tmp_path / "out.trec")
    assert code == 0
    assert list(run) == ["q7"]
    assert list(run["q7"]) == list(margins)
    assert run["q7"] == pytest.approx(margins, abs=1e-6)
    assert {line.split()[5] for line in out.splitlines()} == {"my-run"}


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (
            '{"_id": "a", "text": "x"}\n{"_id": "my file#1", "text": "y"}',
            [],
            "d.jsonl:2: TREC files cannot carry an id",
        ),
        ('{"_id": "", "text": "x"}', [], "d.jsonl:1: TREC files cannot carry an empty id"),
        ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "x"}', [], "d.jsonl:2: the id 'a' comes a second time"),
        ('{"_id": "a", "text": "x"}', ["--query-id", "q 1"], "--query-id: TREC files cannot carry an id with white"),
        ('{"_id": "a", "text": "x"}', ["--query-id", ""], "--query-id: TREC files cannot carry an empty id"),
    ],
)
def test_trec_output_that_nobody_could_read_is_refused(
    rank: Any, tmp_path: Path, content: str, words: list[str], message: str
) -> None:
    (tmp_path / "d.jsonl").write_text(content)
    code, out, err = rank("--query", "q", "--documents", str(tmp_path / "d.jsonl"), "--format", "trec", *words)
    assert (code, out) == (2, "")
    assert message in err
    code, out, err = rank("--query", "q", "--documents", str(tmp_path / "d.jsonl"), "--format", "jsonl", *words)
    assert (code, err) == (0, "")  # only a run has these limits


def test_table_cleans_control_characters(rank: Any, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"_id": "[red]x", "text": "\x1b[31mred [bold]text"}))
    code, out, _ = rank("--query", "q", "--documents", str(file), "--format", "table")
    assert code == 0
    assert "\x1b[31m" not in out
    assert "[red]x" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query", ""], "--query TEXT is missing or empty"),
        (["--query", "q", "--documents", "/nope.jsonl"], "/nope.jsonl: No such file"),
        (["--query", "q", "--documents", "BAD"], "bad.jsonl:2: not JSON"),
        (["--query", "q", "--documents", "EMPTY"], "there is no document in it"),
        (["--query", "q", "--documents", "ODD"], "expected .txt, .jsonl"),
        (["--query", "q", "--documents", "BINARY"], "not UTF-8"),
        (["--query", "q", "--run", "x"], "--run needs --corpus"),
        (["--query", "q", "--top-k", "0"], "--top-k"),
        (["--query", "q", "--documents", "GOOD", "--max-length", "9"], "max_length 9 is too small"),
        (["--query", "q", "--documents", "GOOD", "--template", "nope"], "neither a preset"),
        (["--query", "q", "--documents", "GOOD", "--device", "cuda:7"], "device"),
        (["--query", "q", "--nope"], "--nope"),
    ],
)
def test_bad_input_is_one_clear_line(rank: Any, tmp_path: Path, words: list[str], message: str) -> None:
    files = {"BAD": ("bad.jsonl", b'{"text": "a"}\n{"text"'), "EMPTY": ("empty.txt", b"\n\n"), "ODD": ("x.docx", b"")}
    files |= {"BINARY": ("b.txt", b"\xff\xfe\x00"), "GOOD": ("good.txt", b"a\nb\n")}
    for name, content in files.values():
        (tmp_path / name).write_bytes(content)
    code, out, err = rank(*(str(tmp_path / files[w][0]) if w in files else w for w in words))
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_hostile_passages_are_all_ranked(rank: Any, tmp_path: Path, tokenizer: Any) -> None:
    specials = "".join(token.content for token in tokenizer.added_tokens_decoder.values())
    hostile = [specials, "\x00\x01\x1b", "\ud800 lone", "x" * 1_000_000, "", "word " * 200_000, "\u202e\u200b"]
    file = tmp_path / "hostile.jsonl"
    file.write_text("\n".join(json.dumps(text) for text in hostile))
    code, out, err = rank("--query", specials, "--documents", str(file), "--no-text")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == len(hostile)


def test_models_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"smollm2-135m", "prorank", "mxbai-rerank-v2", "qwen3-reranker"} <= {row["name"] for row in rows}
    assert main(["models", "--format", "table"]) == 0


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    parser = build_parser(command)
    text = parser.format_help()
    assert parser.description
    for action in parser._actions:
        assert action.help or not action.option_strings, f"{command} {action.option_strings}: no help text"
    assert "usage" in text


def test_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from prorank.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'rich', 'fastapi', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "commands:" in done.stdout


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["nope"])
    assert stop.value.code == 2
    assert "rank" in capsys.readouterr().err


def test_thresholds_leave_out_and_say_so(rank: Any, tmp_path: Path) -> None:
    words = ["--query", "germs", "--documents", str(write(tmp_path, ".jsonl")), "--format", "jsonl"]
    rows = [json.loads(line) for line in rank(*words)[1].splitlines()]
    code, out, err = rank(*words, "--min-margin", str(rows[0]["margin"] - 1e-4))
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == rows[:1]
    assert err == "prorank rank: 2 of 3 documents are below the threshold and left out\n"
    for flag, value, message in (
        ("--min-score", "1.5", "--min-score: expected a probability from 0 to 1, got '1.5'"),
        ("--min-score", "half", "--min-score: expected a probability"),
        ("--min-margin", "inf", "--min-margin: expected a finite number, got 'inf'"),
    ):
        code, out, err = rank(*words, flag, value)
        assert (code, out) == (2, "")
        assert message in err


def test_explain_draws_a_bar_a_sentence(rank: Any, tmp_path: Path) -> None:
    file = tmp_path / "two.txt"
    file.write_text("A germ came. Vaccines [bold]train\x1b[31m cells.\nBread needs flour.\n")
    words = ("--query", "vaccines", "--documents", str(file))
    code, out, err = rank(*words, "--explain", "1", "--format", "jsonl")
    assert (code, err) == (0, "")
    best, other = map(json.loads, out.splitlines())
    assert "sentences" not in other
    assert all(best["text"][s["start"] : s["end"]] == s["text"] for s in best["sentences"])
    code, out, _ = rank(*words, "--explain", "--format", "table")
    assert code == 0
    assert "Vaccines [bold]train" in out
    assert "\x1b" not in out
    longest = max(best["sentences"], key=lambda s: abs(s["weight"]))
    drawn = [line for line in out.splitlines() if f"{longest['weight']:+.2f}" in line]
    assert drawn
    code, _, err = rank(*words, "--explain", "--format", "trec")
    assert (code, "--explain: a trec run has no place for sentences" in err) == (2, True)
    code, _, err = rank(*words, "--explain", "0")
    assert code == 2
    assert "--explain" in err
