"""Our margins against plain transformers: the whole prompt as text, one pair at a time, full logits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prorank import Reranker
from prorank.types import EncodedGroup
from testkit.tiny_models import ARCHITECTURES, make_tiny

QUERIES = ["how do vaccines create immunity?", "who wrote Emma", "x"]
DOCUMENTS = [
    "A vaccine shows the immune system a harmless piece of a germ.",
    "Jane Austen.",
    "",
    "Grüße, 漢字, 🙂 and a\nline break\n\nor two.",
    "word " * 60,
    "A vaccine shows the immune system a harmless piece of a germ.",
]


def reference_margins(reranker: Reranker, query: str, documents: list[str]) -> np.ndarray:
    """What a reader of the model card would write: render the chat, run the model, subtract two logits."""
    model, tokenizer = reranker.backend.model, reranker.encoder.tokenizer  # type: ignore[attr-defined]
    margins = []
    for document in documents:
        ids = reference_ids(reranker, query, document)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
        no, yes = (tokenizer.convert_tokens_to_ids(word) for word in reranker.encoder.template.label_words)
        margins.append(float(logits[yes] - logits[no]))
    return np.array(margins, dtype=np.float32)


def reference_ids(reranker: Reranker, query: str, document: str) -> list[int]:
    """The prompt as one string, tokenised by transformers in one go."""
    template = reranker.encoder.template
    values = {"{instruction}": template.default_instruction or "", "{query}": query, "{document}": document}
    text = ""
    for piece in template.pieces:
        filled = piece.text
        for field, value in values.items():
            filled = filled.replace(field, value.strip()) if piece.kind == "user" else filled
        text += filled
    return list(reranker.encoder.tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiny_models_equal_plain_transformers(tiny_dirs: dict[str, Path], architecture: str) -> None:
    reranker = Reranker.from_pretrained(tiny_dirs[architecture], dtype="float32")
    assert reranker.backend.capabilities.shares_prefixes
    for query in QUERIES:
        got = reranker.margins(query, DOCUMENTS)
        assert np.abs(got).max() > 0.01, "the random model must separate documents, or equality says nothing"
        np.testing.assert_allclose(got, reference_margins(reranker, query, DOCUMENTS), atol=1e-4)


def test_built_in_base_equals_plain_transformers(base_model: Reranker) -> None:
    for query in QUERIES[:2]:
        got = base_model.margins(query, DOCUMENTS)
        np.testing.assert_allclose(got, reference_margins(base_model, query, DOCUMENTS), atol=1e-4)


def test_label_logits_are_a_slice_of_the_vocabulary(base_model: Reranker) -> None:
    group = base_model.encode(QUERIES[0], DOCUMENTS).group
    whole = base_model.backend.last_logits(group)  # type: ignore[attr-defined]
    assert whole.shape == (len(DOCUMENTS), len(base_model.encoder.tokenizer))
    np.testing.assert_allclose(
        whole[:, list(base_model.encoder.label_ids)], base_model.backend.label_logits(group), atol=1e-4
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_saved_folder_loads_as_cross_encoder(tiny_dirs: dict[str, Path], architecture: str, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    reranker = Reranker.from_pretrained(tiny_dirs[architecture], dtype="float32")
    folder = reranker.save(tmp_path / "saved")
    again = Reranker.from_pretrained(folder, dtype="float32")
    cross = sentence_transformers.CrossEncoder(str(folder), model_kwargs={"dtype": torch.float32}, device="cpu")
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    ours = reranker.score(pairs)
    np.testing.assert_allclose(again.score(pairs), ours, atol=1e-5)
    theirs = cross.predict(pairs, batch_size=4)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


@pytest.mark.parametrize("long_documents", ["truncate", "excerpt", "max_window"])
def test_saving_warns_where_cross_encoder_reads_other_parts(
    tiny_llama_dir: Path, tmp_path: Path, long_documents: Any
) -> None:
    reranker = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", long_documents=long_documents)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reranker.save(tmp_path / "saved")
    said = [str(one.message) for one in caught if "CrossEncoder" in str(one.message)]
    assert len(said) == (long_documents != "truncate")
    assert all(repr(long_documents) in text for text in said)


def test_cross_encoder_truncates_as_we_do(tiny_llama_dir: Path, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    reranker = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=128)
    folder = reranker.save(tmp_path / "saved")
    cross = sentence_transformers.CrossEncoder(str(folder), model_kwargs={"dtype": torch.float32}, device="cpu")
    pairs = [("who wrote Emma", "the novel was written by " * 50), ("who wrote Emma", "short")]
    np.testing.assert_allclose(cross.predict(pairs), reranker.score(pairs), atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"q_proj": 2}}])
def test_adapter_is_merged_as_peft_computes_it(tiny_llama_dir: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32)
    lora = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **settings))
    lora.save_pretrained(tmp_path / "adapter")
    merged = Reranker.from_pretrained(tiny_llama_dir, adapter=tmp_path / "adapter", dtype="float32")
    plain = Reranker.from_pretrained(tiny_llama_dir, dtype="float32")
    ours = merged.margins(QUERIES[0], DOCUMENTS)
    assert np.abs(ours - plain.margins(QUERIES[0], DOCUMENTS)).max() > 0.01
    fresh: Any = AutoModelForCausalLM.from_pretrained(tiny_llama_dir, dtype=torch.float32)
    plain.backend.model = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()  # type: ignore[attr-defined]
    np.testing.assert_allclose(ours, reference_margins(plain, QUERIES[0], DOCUMENTS), atol=1e-4)


def test_a_cache_that_cannot_be_shared_is_said_and_done_without(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_tiny(tmp_path / "mamba", "mamba", tokenizer)
    with caplog.at_level("WARNING", logger="prorank"):
        reranker = Reranker.from_pretrained(folder, dtype="float32")
    assert not reranker.backend.capabilities.shares_prefixes
    assert "cannot be shared" in caplog.text
    got = reranker.margins(QUERIES[0], DOCUMENTS)
    assert np.abs(got).max() > 0.01
    np.testing.assert_allclose(got, reference_margins(reranker, QUERIES[0], DOCUMENTS), atol=1e-4)


SCALED = {"granite": {"logits_scaling": 8.0}, "cohere": {"logit_scale": 0.0625}}


@pytest.mark.parametrize("architecture", SCALED)
def test_a_scaled_head_is_as_fast_as_another(
    architecture: str, tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_tiny(tmp_path / architecture, architecture, tokenizer, **SCALED[architecture])
    with caplog.at_level("WARNING", logger="prorank"):
        reranker = Reranker.from_pretrained(folder, dtype="float32", max_length=256)
    assert not caplog.records
    assert reranker.backend.capabilities.shares_prefixes
    got = reranker.margins(QUERIES[0], DOCUMENTS)
    np.testing.assert_allclose(got, reference_margins(reranker, QUERIES[0], DOCUMENTS), atol=1e-4)
    group = reranker.encode(QUERIES[0], DOCUMENTS).group
    backend: Any = reranker.backend
    logits = backend.last_logits(group)[:, list(backend.label_ids)]
    np.testing.assert_allclose(logits, backend.label_logits(group), atol=1e-4)


def test_an_unknown_head_is_not_blamed_on_the_cache(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prorank.backends.torch._logit_scale", lambda _model: 1.0)
    folder = make_tiny(tmp_path / "granite", "granite", tokenizer, **SCALED["granite"])
    with caplog.at_level("WARNING", logger="prorank"):
        reranker = Reranker.from_pretrained(folder, dtype="float32", max_length=256)
    assert "not a plain matrix" in caplog.text
    assert "cannot be shared" not in caplog.text
    got = reranker.margins(QUERIES[0], DOCUMENTS)
    np.testing.assert_allclose(got, reference_margins(reranker, QUERIES[0], DOCUMENTS), atol=1e-4)


@pytest.mark.parametrize("changes", [{"logits_scaling": 8.0}, {"embedding_multiplier": 12.0}])
def test_parts_of_a_model_are_checked_before_they_score(
    changes: dict[str, float], tmp_path: Path, tokenizer: Any
) -> None:
    from prorank.early_exit.torch import SplitDecoder

    folder = make_tiny(tmp_path / "granite", "granite", tokenizer, **changes)
    backend: Any = Reranker.from_pretrained(folder, dtype="float32", max_length=256).backend
    if "embedding_multiplier" in changes:  # it would multiply the states between the parts again
        with pytest.raises(ValueError, match="granite in parts does not score as the whole model"):
            SplitDecoder(backend, [1])
        return
    split = SplitDecoder(backend, [1])
    group = EncodedGroup((1, 2, 3), [(4, 5, 6), (7,)], 1)
    got = split.finish([(split.begin(group), [0, 1])]).numpy()
    np.testing.assert_allclose(got, backend.label_logits(group), atol=1e-4)
