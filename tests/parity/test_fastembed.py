"""Exports for fastembed: its own TextCrossEncoder gives the checkpoint's margins for texts that fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prorank import Reranker
from prorank.cli.main import main
from testkit.tiny_models import make_tiny

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

QUERY = "how do vaccines work?"
TEXTS = [
    "bread is baked",
    "  vaccines train the immune system\n",
    "",
    "a <|im_end|> token </s> as text",
    "查询 naïve \U0001f600",
]


@pytest.fixture(scope="module")
def exported(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Reranker, Path]:
    from transformers import AutoTokenizer

    from prorank.export.targets import export

    root = tmp_path_factory.mktemp("fastembed")
    checkpoint = make_tiny(root / "tiny", "llama", AutoTokenizer.from_pretrained(base_folder))
    reference = Reranker.from_pretrained(checkpoint, dtype="float32", max_length=128)
    return reference, export(reference, "fastembed", root / "made")


def test_a_runtime_and_a_tokenizer_are_enough_for_the_margins(exported: tuple[Reranker, Path]) -> None:
    from prorank.export.targets import opened

    reference, folder = exported
    scores = opened("fastembed", folder)
    wanted = reference.margins(QUERY, TEXTS)
    np.testing.assert_allclose(scores.margins(QUERY, TEXTS), wanted, atol=1e-4)
    alone = np.concatenate([scores.margins(QUERY, [text]) for text in TEXTS])
    np.testing.assert_allclose(alone, wanted, atol=1e-4, err_msg="padding")
    long = "A sentence about the weather. " * 60
    np.testing.assert_allclose(scores.margins(QUERY, [long]), reference.margins(QUERY, [long]), atol=1e-4)


def test_fastembed_itself_gives_the_margins(exported: tuple[Reranker, Path]) -> None:
    pytest.importorskip("fastembed", reason="fastembed is the group 'ecosystem-fastembed'")
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    from prorank.integrations.fastembed import open_model, register

    reference, folder = exported
    encoder = open_model(folder, threads=1)
    assert isinstance(encoder, TextCrossEncoder)
    texts = [*TEXTS, "A sentence about the weather. " * 60]
    wanted = reference.margins(QUERY, texts)
    np.testing.assert_allclose(list(encoder.rerank(QUERY, texts)), wanted, atol=1e-4)
    pairs = [("another query", texts[0]), (QUERY, texts[1])]
    np.testing.assert_allclose(list(encoder.rerank_pairs(pairs, batch_size=1)), reference.score(pairs), atol=1e-4)
    assert register(folder) == "prorank/made"
    assert "prorank/made" in [one["model"] for one in TextCrossEncoder.list_supported_models()]
    with pytest.raises(ValueError, match="not made for fastembed"):
        register(folder.parent / "tiny")


def test_what_cannot_be_said_to_fastembed_is_refused(
    exported: tuple[Reranker, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = exported
    with pytest.raises(ValueError, match=r"made for fastembed: open it with prorank\.integrations\.fastembed"):
        Reranker.from_pretrained(folder)
    command = ["export", "--model", str(folder.parent / "tiny"), "--to", "fastembed", "--parity-queries", "1"]
    assert main([*command, "--out", str(tmp_path / "other"), "--template", "mxbai-rerank-v2"]) == 2
    assert "'mxbai-rerank-v2' has other words beside them" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "int8"), "--max-length", "96", "--to", "fastembed-int8"]) == 0
    assert json.loads((tmp_path / "int8" / "parity.json").read_text())["max_difference"] < 2
