"""Names, files, folders and extras that a long command needs are looked at before anything is computed or loaded."""

from __future__ import annotations

import importlib
import sys

import pytest

from prorank.cli.main import main
from prorank.data.collection import Collection
from prorank.data.convert import convert
from prorank.types import Document, Query

pytest.importorskip("bm25s")
pytest.importorskip("ir_measures")


@pytest.fixture
def data(tmp_path):
    collection = Collection(
        "toy",
        {f"d{i}": Document(f"d{i}", f"word{i} stands here") for i in range(12)},
        {f"q{i}": Query(f"q{i}", f"where does word{i} stand") for i in range(4)},
        {f"q{i}": {f"d{i}": 1} for i in range(4)},
        "test",
    )
    convert(collection, tmp_path / "toy", "beir")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    return str(tmp_path / "toy")


@pytest.fixture
def nothing_starts(monkeypatch):
    """First stages, models and bases refuse to be computed or loaded: the error must come before."""

    def refuse(*_, **__):
        raise AssertionError("something was computed or loaded before everything was checked")

    importlib.import_module("prorank.model.checkpoint")  # takes load_base by name: it must have the real one
    for module, name in (("data.first_stage", "first_stage"), ("model.base", "load_base"), ("data.bm25", "bm25_run")):
        monkeypatch.setattr(importlib.import_module(f"prorank.{module}"), name, refuse)
    monkeypatch.setattr(importlib.import_module("prorank.reranker").Reranker, "from_pretrained", refuse)


EVALUATE = "evaluate --data DATA --model MODEL"
TRAIN = "train --data DATA --model MODEL --out TMP/new"
REFINE = "refine --data DATA --model MODEL --out TMP/new"
WARMUP = "warmup --data DATA --model MODEL --out TMP/new"
TEACH = "teach --data DATA --teacher bm25 --out TMP/x.jsonl"


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{EVALUATE} --against nobody", "against: 'nobody' is none of the systems: bm25, llama"),
        (f"{EVALUATE} --model ./nowhere", "--model: model './nowhere' is not a folder"),
        (f"{EVALUATE} --model TMP/empty", "holds no model"),
        (f"{EVALUATE} --baseline cross-encoder:./nowhere", "there is no model './nowhere'"),
        (f"{EVALUATE} --baseline bi-encoder --baseline cohere:m", "COHERE_API_KEY"),
        (f"{EVALUATE} --cascade fast", "--cascade: MODEL has no read-outs"),
        (f"{EVALUATE} --out TMP/file/x", "--out: TMP/file/x cannot be a folder: TMP/file is a file"),
        (f"{EVALUATE} --record TMP/empty", "--record: TMP/empty is a folder; expected a file name"),
        (f"{EVALUATE} --template nowhere.json", "--template: template 'nowhere.json' is neither a preset"),
        (f"{EVALUATE} --adapter TMP/empty", "--adapter: TMP/empty holds no adapter_config.json"),
        (f"{EVALUATE} --backend torhc", "backend must be auto, torch"),
        (f"{EVALUATE} --first-stage bm52", "--first-stage: 'bm52' is not a run file or one of bm25"),
        (f"{EVALUATE} --first-stage dense:./nowhere", "--first-stage: dense:./nowhere: there is no folder ./nowhere"),
        ("analyze --data DATA --model MODEL --model ./nowhere --out TMP/new", "--model: model './nowhere'"),
        ("analyze --data DATA --model MODEL --out TMP/file", "--out: TMP/file cannot be a folder"),
        ("bench --data DATA --model MODEL --model ./nowhere", "--model: model './nowhere'"),
        ("bench --data nowhere --model MODEL", "--data: 'nowhere' is not a file"),
        (f"{TRAIN} --test nowhere:test", "--test nowhere:test: data: 'nowhere' is not a file"),
        (f"{TRAIN} --test DATA:dev", "--test DATA:dev: split:"),
        (f"{TRAIN} --data nowhere", "--data: 'nowhere' is not a file"),
        (f"{TRAIN} --teacher nowhere.trec", "--teacher: 'nowhere.trec' is not a run file"),
        (f"{TRAIN} --template nowhere", "--template: template 'nowhere' is neither"),
        ("train --data DATA --model ./nowhere --out TMP/new", "--model: model './nowhere'"),
        ("train --data DATA --model MODEL --out TMP/file/x", "--out: TMP/file/x cannot be a folder"),
        (f"{REFINE} --exclude nowhere", "--exclude nowhere: data: 'nowhere'"),
        (f"{REFINE} --data DATA --data nowhere", "--data: 'nowhere' is not a file"),
        (f"{REFINE} --records TMP/empty", "--records: TMP/empty is a folder"),
        (f"{REFINE} --first-stage nowhere.trec", "--first-stage: 'nowhere.trec' is not a run file"),
        (f"{WARMUP} --first-stage bm52", "--first-stage: 'bm52'"),
        (f"{WARMUP} --split dev", "--data: DATA has the splits test; 'dev' is not among them"),
        (f"{TEACH} --teacher ./nowhere", "--teacher: model './nowhere'"),
        (f"{TEACH} --teacher cross-encoder:./nowhere", "there is no model './nowhere'"),
        ("teach --data DATA --teacher bm25 --out TMP/file/x.jsonl", "--out: TMP/file cannot be a folder"),
        ("mine --data DATA --model ./nowhere --out TMP/x.jsonl", "--model: model './nowhere'"),
        ("mine --data DATA --out TMP/file/x.jsonl", "--out: TMP/file cannot be a folder"),
        ("calibrate --data DATA --data nowhere --dry-run", "--data: 'nowhere' is not a file"),
        ("cascade --data DATA --first-stage bm52 --out TMP/new", "--first-stage: 'bm52'"),
        ("cascade --data DATA --out TMP/file/x", "--out: TMP/file/x cannot be a folder"),
        ("export --to onnx --model ./nowhere --out TMP/new", "--model: model './nowhere'"),
        ("export --to onnx --model MODEL --out TMP/file/x", "--out: TMP/file/x cannot be a folder"),
        ("export --to onnx --model MODEL --out TMP/new --data nowhere", "--data: 'nowhere' is not a file"),
        ("data convert nowhere --to jsonl --out TMP/file/x.jsonl", "--out: TMP/file cannot be a folder"),
        ("data fuse TMP/a.trec TMP/b.trec --out TMP/c.trec", "RUN: there is no file TMP/a.trec"),
        ("data mine DATA --out TMP/file/x.trec", "--out: TMP/file cannot be a folder"),
    ],
)
def test_one_line_that_names_the_flag(data, tiny_llama_dir, tmp_path, capsys, monkeypatch, line, message):
    monkeypatch.delenv("COHERE_API_KEY", raising=False)
    names = {"DATA": data, "MODEL": str(tiny_llama_dir), "TMP": str(tmp_path)}
    for name, value in names.items():
        line, message = line.replace(name, value), message.replace(name, value)
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("line", "module", "extra"),
    [
        (EVALUATE, "jinja2", "evaluate"),
        (f"{EVALUATE} --baseline bi-encoder", "sentence_transformers", "evaluate"),
        ("analyze --data DATA --model MODEL --out TMP/new", "jinja2", "evaluate"),
        ("bench --peers --data DATA --model MODEL", "sentence_transformers", "evaluate"),
        (TRAIN, "jinja2", "train"),
        (TRAIN, "accelerate", "train"),
        (REFINE, "ir_measures", "train"),
        (WARMUP, "jinja2", "train"),
        ("calibrate --data DATA --dry-run", "scipy", "evaluate"),
        ("export --to onnx --model MODEL --out TMP/new", "onnxruntime", "onnx"),
        ("export --to openvino-int8 --model MODEL --out TMP/new", "nncf", "openvino"),
        ("export --to gguf --model MODEL --out TMP/new", "llama_cpp", "llamacpp"),
    ],
)
def test_a_missing_extra_is_asked_for_at_the_start(
    data, tiny_llama_dir, tmp_path, capsys, monkeypatch, line, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    names = {"DATA": data, "MODEL": str(tiny_llama_dir), "TMP": str(tmp_path)}
    for name, value in names.items():
        line = line.replace(name, value)
    assert main(line.split()) == 2
    assert f"{module} is not installed; it comes with: pip install 'prorank[{extra}]'" in capsys.readouterr().err


def test_the_parity_report_needs_no_scipy():
    """Kendall's tau-b against scipy's, with ties and without."""
    import numpy as np

    from prorank.export.parity import kendall_tau

    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 8, 12), rng.normal(size=12).round(1)
        assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert kendall_tau([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == -1.0
    assert np.isnan(kendall_tau([1.0, 1.0], [0.0, 1.0]))


def test_export_ends_without_scipy(tiny_llama_dir, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    words = ["export", "--to", "merged", "--model", str(tiny_llama_dir), "--out", str(tmp_path / "out")]
    assert main([*words, "--parity-queries", "1"]) == 0
    assert "Kendall's tau        1.0000" in capsys.readouterr().out
