"""Exported folders score as the checkpoint they were made from, whatever the company, and say clearly what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prorank import Reranker
from prorank.backends.processor import processor_features
from prorank.backends.tolerances import FIDELITY, company_limit
from prorank.cli.main import main
from testkit.small_texts import DOCUMENTS, QUERY
from testkit.tiny_models import make_tiny

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

TARGETS = ("openvino-f32", "onnx", "openvino-bf16", "openvino-int8", "onnx-int8")


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def checkpoint(request: pytest.FixtureRequest, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint with the base's tokenizer."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp(request.param)
    return make_tiny(folder, request.param, AutoTokenizer.from_pretrained(base_folder))


@pytest.mark.parametrize("target", TARGETS)
def test_margins_are_the_checkpoints(checkpoint: Path, target: str, tmp_path: Path) -> None:
    if "llama" not in checkpoint.name and target.startswith("onnx-"):
        pytest.skip("quantisation does not depend on the architecture: one is enough")
    from prorank.export.targets import export

    reference = Reranker.from_pretrained(checkpoint, dtype="float32", max_length=160)
    wanted = reference.margins(QUERY, DOCUMENTS)
    folder = export(reference, target, tmp_path / target)
    exported = Reranker.from_pretrained(folder, threads=1)
    assert exported.encoder.max_length == 160
    assert exported.batch_tokens == (256 if target.startswith("openvino") else 1024)
    np.testing.assert_allclose(reference.margins(QUERY, DOCUMENTS), wanted, atol=1e-6, err_msg="export left its mark")
    got = exported.margins(QUERY, DOCUMENTS)
    assert_close(got, wanted, exported.backend.name)
    company = company_limit(exported.backend.name)
    order = [3, 0, 9, 4, 2, 1, 8, 5, 7, 6]
    turned = exported.margins(QUERY, [DOCUMENTS[i] for i in order])
    np.testing.assert_allclose(turned, got[order], atol=company, err_msg="order")
    if target.startswith("openvino"):
        several = Reranker.from_pretrained(folder, threads=3)
        one_stream = target == "openvino-bf16" and "amx_tile" in processor_features()
        assert several.step_tokens == (256 if one_stream else 3 * 128)
        np.testing.assert_allclose(
            several.margins(QUERY, DOCUMENTS), got, atol=company, err_msg="three passes at a time"
        )
        assert Reranker.from_pretrained(folder, threads=3, max_length=300).step_tokens == 256, (
            "two cores for a long one"
        )
    alone = np.concatenate([exported.margins(QUERY, [text]) for text in DOCUMENTS])
    np.testing.assert_allclose(alone, got, atol=company, err_msg="padding")
    other = exported.margins("another question", DOCUMENTS, instruction="Is it about bread?")
    expected = reference.margins("another question", DOCUMENTS, instruction="Is it about bread?")
    assert_close(other, expected, exported.backend.name)


def assert_close(margins: np.ndarray, wanted: np.ndarray, backend: str) -> None:
    """Within both limits of the backend."""
    differences = np.abs(margins - wanted) / max(1.0, float(wanted.std()))
    assert np.sqrt(np.mean(differences**2)) <= FIDELITY[backend].typical
    assert differences[:5].max() <= FIDELITY[backend].largest


def test_command_writes_a_parity_report(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "export"
    command = ["export", "--model", str(checkpoint), "--to", "openvino-f32", "--out", str(out)]
    assert main([*command, "--parity-queries", "2", "--max-length", "128"]) == 0
    assert "Kendall's tau" in capsys.readouterr().out
    report = json.loads((out / "parity.json").read_text("utf-8"))
    assert report["pairs"] == 40
    assert report["max_difference"] <= 1e-4 * max(1.0, report["spread"])
    assert report["kendall_tau"] >= 0.999
    passages = tmp_path / "passages.txt"
    passages.write_text("vaccines train the immune system\nbread\n", "utf-8")
    rank = ["rank", "--query", QUERY, "--documents", str(passages), "--format", "jsonl"]
    assert main([*rank, "--model", str(out)]) == 0
    assert main([*rank, "--model", str(out), "--backend", "openvino"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[:2] == lines[2:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--to", "openvino-int8", "--out", "{file}"], "not a prorank folder"),
        (["export", "--to", "openvino-int8", "--out", "{new}", "--dtype", "bfloat16"], "--dtype"),
        (["rank", "--query", "q", "--documents", "{file}", "--model", "{export}", "--backend", "onnx"], "openvino"),
        (["rank", "--query", "q", "--documents", "{file}", "--model", "{export}", "--dtype", "float32"], "dtype"),
        (["rank", "--query", "q", "--documents", "{file}", "--model", "{export}", "--device", "cuda"], "CPU"),
        (["rank", "--query", "q", "--documents", "{file}", "--backend", "fast"], "remote:MODEL@URL"),
        (["rank", "--query", "q", "--documents", "{file}", "--backend", "remote:m@host"], "remote:MODEL@http"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tiny_export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "passages.txt"
    file.write_text("a\n", "utf-8")
    places = {"{file}": str(file), "{new}": str(tmp_path / "new"), "{export}": str(tiny_export)}
    words = [places.get(word, word) for word in arguments]
    if words[0] == "export":
        words += ["--model", str(tiny_export.parent / "checkpoint")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_damaged_and_foreign_exports_are_refused(tiny_export: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_export, copy)
    (copy / "openvino_model.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="damaged"):
        Reranker.from_pretrained(copy)
    (copy / "openvino_model.bin").unlink()
    with pytest.raises(ValueError, match="missing"):
        Reranker.from_pretrained(copy)


def test_windowed_attention_is_refused(base_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from prorank.export.targets import export

    folder = make_tiny(tmp_path / "gemma3", "gemma3", AutoTokenizer.from_pretrained(base_folder))
    reranker = Reranker.from_pretrained(folder, dtype="float32", max_length=160)
    with pytest.raises(ValueError, match="plain causal attention"):
        export(reranker, "openvino-f32", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tiny_export(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OpenVINO export; ``checkpoint`` beside it."""
    from transformers import AutoTokenizer

    from prorank.export.targets import export

    root = tmp_path_factory.mktemp("tiny-export")
    make_tiny(root / "checkpoint", "llama", AutoTokenizer.from_pretrained(base_folder))
    reranker = Reranker.from_pretrained(root / "checkpoint", dtype="float32", max_length=160)
    return export(reranker, "openvino-f32", root / "export")


def test_graphs_of_older_versions_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from prorank.backends.graph import GraphBackend

    class Backend(GraphBackend):
        def infer(self, *_):
            raise AssertionError

    save_file({"rows": np.zeros((2, 4), np.float32), "bias": np.zeros(2, np.float32)}, tmp_path / "labels.safetensors")
    with pytest.raises(ValueError, match="kept is missing: an older version"):
        Backend(tmp_path, ("ids", "last", "past", "hidden"), (4, 1, 1, 1, 2))
