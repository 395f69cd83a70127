"""The script for a GPU that is lent for minutes, rehearsed on the CPU: staged, assembled, trained and measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import short_gpu
from parts import pack, unpack

from prorank.data.convert import convert
from prorank.data.encoders import ENCODERS
from prorank.data.trec import write_run
from prorank.export.gguf import write_gguf
from prorank.files import sha256_file
from prorank.model.base import load_base
from prorank.model.built_in import BUILT_IN
from prorank.published import fetch
from prorank.types import Document, Query
from testkit.refine import candidates
from testkit.tiny_models import make_tiny, make_tiny_bert
from testkit.tiny_tokenizers import tiny_tokenizer
from testkit.warmup import CHAT, collection

SMALL = (
    "warmup.steps=1", "warmup.group_size=4", "warmup.held_out_queries=2", "warmup.eval_every=1", "warmup.lora_rank=2",
    "refine.steps=2", "refine.queries_per_step=2", "refine.list_size=4", "refine.hard_negatives=3",
    "refine.held_out_queries=6", "refine.eval_every=2", "refine.lora_rank=2", "refine.precision=float32",
    "warmup.precision=float32", "refine.document_tokens=12", "warmup.document_tokens=12", "threads=1",
)  # fmt: skip


def files_under(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_parts_hold_the_files_and_are_checked(tmp_path: Path) -> None:
    source, parts, work = tmp_path / "source", tmp_path / "parts", tmp_path / "work"
    (source / "sub").mkdir(parents=True)
    parts.mkdir()
    (source / "a.bin").write_bytes(bytes(range(256)) * 500)
    (source / "sub" / "empty").touch()
    names = pack(short_gpu._files(source, "all"), parts, 50_000)
    assert names == ["part-000", "part-001", "part-002"]
    assert all((parts / name).stat().st_size <= 50_000 for name in names)
    unpack(parts, work)
    assert files_under(work / "all") == files_under(source)
    unpack(parts, work)  # done before: nothing is read again
    (parts / "part-001").write_bytes(b"x")
    with pytest.raises(ValueError, match="part-001 is damaged"):
        unpack(parts, tmp_path / "other")
    (parts / "part-001").unlink()
    with pytest.raises(ValueError, match="1 of 3 parts are missing, first part-001"):
        unpack(parts, tmp_path / "other")
    with pytest.raises(ValueError, match="holds no parts"):
        unpack(source, tmp_path / "other")


@pytest.fixture
def offline(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe's collections, base and encoders under their names, all of them tiny."""
    cache, data = own_home / "cache", tmp_path / "data"
    monkeypatch.setenv("PRORANK_DATA", str(data))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    toy = collection()
    backwards = replace(
        toy,
        documents={d: Document(d, document.text[::-1]) for d, document in toy.documents.items()},
        queries={q: Query(q, query.text[::-1]) for q, query in toy.queries.items()},
    )
    for name in ("msmarco-sample", "dl21-lists", "dl22-lists"):
        convert(replace(toy, split="train"), data / name, "beir")
    (data / "dl22-lists" / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n")
    measured = {"dl19": "test", "scifact": "test", "nfcorpus": "test", "cosqa": "dev", "wikiqa": "dev"}
    for name, split in measured.items():
        convert(replace(backwards, split=split), data / name, "beir")
    for file, seed in (("dl21-lists/runs/given.train", 0), ("dl21-lists/runs/teacher-splade.train", 1),
                       ("dl22-lists/runs/given.train", 0), ("dl22-lists/runs/teacher-splade.train", 1),
                       ("dl19/runs/bm25.test", 0)):  # fmt: skip
        (data / file).parent.mkdir(exist_ok=True)
        write_run(data / f"{file}.trec", candidates(seed))
    tokenizer = tiny_tokenizer("qwen2")
    tokenizer.chat_template = CHAT
    model = load_base(str(make_tiny(tmp_path / "model", "qwen2", tokenizer))).model
    file = write_gguf(model, tokenizer, cache / "bases" / "tiny.gguf", quantisation="f32")
    name = "qwen2.5-coder-0.5b"
    monkeypatch.setitem(BUILT_IN, name, BUILT_IN[name]._replace(file=file.name, sha256=sha256_file(file), sources=()))
    for name, kind in (("splade-tiny", "sparse"), ("all-mpnet-base-v2", "dense")):
        folder = make_tiny_bert(tmp_path / name, kind)
        row = ENCODERS[name]._replace(sha256=sha256_file(folder / "model.safetensors"), sources=())
        monkeypatch.setitem(ENCODERS, name, row)
        shutil.copytree(folder, fetch.cached_folder(row))
    return tmp_path


def call(*words: object) -> int:
    return short_gpu.main([str(word) for word in words])


def test_the_whole_run_with_tiny_models(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts, work, out = offline / "parts", offline / "work", offline / "out"
    assert call("stage", "--out", parts, "--part-mib", 1) == 0
    assert "parts of at most 1 MiB" in capsys.readouterr().out
    for lost in (offline / "data", offline / "home" / "cache"):  # another machine
        shutil.rmtree(lost)
    words = ["run", "--parts", parts, "--work", work, "--out", out, "--device", "cpu", "--max-queries", 3]
    assert call(*words, "--set", *SMALL) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line == json.loads((out / "result.jsonl").read_text())
    assert set(line["nDCG@10"]) == {"dl19:test", "scifact:test", "nfcorpus:test", "cosqa:dev", "wikiqa:dev"}
    assert all(set(systems["refined"]) == {"mean", "low", "high"} for systems in line["nDCG@10"].values())
    assert line["documents"] == 2 * 2 * 4
    assert set(line["seconds"]) == {"assemble", "train", "evaluate"}
    assert "nDCG@10/dl21-lists" in line["held_out"]["after"]
    unpack(out, offline / "back")
    assert (offline / "back" / "model" / "adapter_model.safetensors").is_file()
    assert (out / "dl19-test.md").is_file()
    assert call(*words, "--set", *SMALL) == 0  # everything was done before
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["nDCG@10"] == line["nDCG@10"]


def test_scores_travel_in_place_of_encoders(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts, work, out = offline / "parts", offline / "work", offline / "out"
    assert call("stage", "--out", parts, "--teach") == 0
    assert not (parts / "scratch").exists()
    shutil.rmtree(offline / "home" / "cache")
    words = ["run", "--parts", parts, "--work", work, "--out", out, "--device", "cpu", "--evaluate"]
    assert call(*words, "--set", *SMALL) == 0
    assert not list((work / "cache").glob("*-encoders"))
    assert (work / "data" / "dl22-lists" / "runs" / "taught.train.trec.gz").is_file()
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["documents"] == 2 * 2 * 4
    assert line["nDCG@10"] == {}


@pytest.mark.parametrize("words", [["--recipe", "nowhere.toml"], ["--evaluate", "nowhere:test:bm25"]])
def test_what_is_missing_is_named(words: Sequence[str], offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call("stage", "--out", offline / "parts", *words)
    assert stopped.value.code == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_recipe_is_known_and_zero_shot() -> None:
    from prorank.config import build_config, config_dict, read_config
    from prorank.data.teacher import check_teacher
    from prorank.pipeline.datasets import DatasetSpec
    from prorank.training.refine.config import RefineConfig
    from prorank.training.warmup.config import WarmupConfig

    file = read_config(short_gpu.RECIPE)
    assert file["model"] in BUILT_IN
    for section, kind in (("warmup", WarmupConfig), ("refine", RefineConfig)):
        values = config_dict(build_config(kind, section, file))
        assert {name: values[name] for name in file[section]} == file[section]
    specs = [DatasetSpec(**table) for table in file["datasets"]]
    for spec in specs:
        assert spec.teacher is not None
        assert check_teacher(spec.teacher) == []
    measured = {one.partition(":")[0] for one in [*file["test"], *short_gpu.EVALUATE]}
    assert not measured & {spec.path for spec in specs}
