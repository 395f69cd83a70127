"""Sequence-classification exports: transformers' own class gives our margin, by ids and by the score template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prorank import Reranker
from prorank.cli.main import main
from prorank.data.convert import convert
from prorank.export.targets import export
from testkit.small_texts import DOCUMENTS, QUERY
from testkit.tiny_models import make_tiny
from testkit.warmup import collection

PLAIN = [text for text in DOCUMENTS if "<|im_end|>" not in text and len(text) < 200]
"""Neither cut, nor with a special token in them: what a server that takes texts tokenises as we do."""


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def checkpoint(request: pytest.FixtureRequest, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return make_tiny(folder, request.param, tokenizer, tie_word_embeddings=request.param == "qwen2")


def test_transformers_gives_our_margin(checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    reference = Reranker.from_pretrained(checkpoint, dtype="float32", max_length=160)
    wanted = reference.margins(QUERY, DOCUMENTS)
    assert wanted.std() > 0.1
    folder = export(reference, "seq-cls", tmp_path / "seq-cls")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (model.config.num_labels, model.score.weight.dtype, model.score.bias) == (1, torch.float32, None)
    group = reference.encode(QUERY, DOCUMENTS).group
    rows, served = [[*group.prefix_ids, *own] for own in group.own_ids], AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        alone = [float(model(torch.tensor([ids])).logits) for ids in rows]
        padded = AutoTokenizer.from_pretrained(folder).pad(
            {"input_ids": rows}, return_tensors="pt", padding_side="right"
        )
        together = model(**padded).logits[:, 0].numpy()
    np.testing.assert_allclose(alone, wanted, atol=1e-4)
    np.testing.assert_allclose(together, wanted, atol=1e-4)
    again = Reranker.from_pretrained(folder)
    assert (again.backend.name, again.encoder.max_length) == ("seq-cls-cpu-float32", 160)
    np.testing.assert_allclose(again.margins(QUERY, DOCUMENTS), wanted, atol=1e-4)
    np.testing.assert_allclose(reference.margins(QUERY, DOCUMENTS), wanted, atol=1e-6, err_msg="export left its mark")
    template = (folder / "chat_template.jinja").read_text("utf-8")
    for text, ids in zip(DOCUMENTS, rows, strict=True):
        if text in PLAIN:  # as vLLM's score endpoint does it: the template over two messages, then the tokenizer
            messages = [{"role": "query", "content": QUERY}, {"role": "document", "content": text}]
            prompt = served.apply_chat_template(messages, chat_template=template, tokenize=False)
            assert served(prompt)["input_ids"] == ids


def test_command_writes_a_parity_report(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    convert(collection(), tmp_path / "data", "beir")
    command = ["export", "--model", str(tiny_llama_dir), "--to", "seq-cls", "--out", str(out)]
    assert main([*command, "--data", str(tmp_path / "data"), "--parity-queries", "2", "--max-length", "128"]) == 0
    assert "Kendall's tau" in capsys.readouterr().out
    report = json.loads((out / "parity.json").read_text("utf-8"))
    assert report["max_difference"] <= 1e-4
    assert report["pairs"] > 2
    assert report["same_best"] == 1
    again = ["export", "--model", str(out), "--to", "seq-cls", "--out", str(tmp_path / "again")]
    assert main(again) == 2
    assert "already an export" in capsys.readouterr().err


def test_what_has_no_linear_margin_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "gemma3", "gemma3", tokenizer, final_logit_softcapping=30.0)
    reference = Reranker.from_pretrained(folder, dtype="float32", max_length=160)
    with pytest.raises(ValueError, match="caps its logits"):
        export(reference, "seq-cls", tmp_path / "out")
    assert not (tmp_path / "out").exists()
