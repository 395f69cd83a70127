"""GGUF files read with numpy: every kind of block as the gguf package reads it, weights as transformers names them,
token ids as transformers makes them, and clear words about damaged files."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from prorank.export.gguf import write_gguf
from prorank.model.architecture import UnsupportedError, architecture_of_config
from prorank.model.base import BaseError, load_base
from prorank.model.dequantise import KINDS
from prorank.model.gguf_file import GgufFile
from prorank.model.gguf_vocabulary import tokenizer_of
from prorank.model.weights import FolderWeights, GgufWeights
from testkit.tiny_models import make_tiny
from testkit.tiny_tokenizers import TEXTS, tiny_tokenizer

SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
MORE_TEXTS = [
    "<|im_start|>system\nhi<|im_end|>", "12345 a1b2 3.14", "don't I'LL", "e\u0301 \u212b \u1112\u1161\u11ab",
    "x\n\n  y\r\n 7",    "什么是疫苗?", "नमस्ते", "مرحبا", "\U0001f600\U0001f9ec", "\t \u00a0\u3000 .", "",
]  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return make_tiny(folder, request.param, tiny_tokenizer(), **SIZES)


@pytest.mark.parametrize("number", KINDS, ids=lambda number: KINDS[number].name)
def test_blocks_are_read_as_the_gguf_package_reads_them(number: int) -> None:
    kind = KINDS[number]
    assert kind.name == gguf.GGMLQuantizationType(number).name
    assert (kind.weights, kind.bytes) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)]
    raw = np.random.default_rng(number).integers(0, 256, (64, kind.bytes * 4), dtype=np.uint8)
    with np.errstate(all="ignore"):  # some float16 scales are not finite
        wanted = dequantize(raw, gguf.GGMLQuantizationType(number))
        found = kind.read(raw.reshape(-1, kind.bytes)).reshape(wanted.shape)
    np.testing.assert_array_equal(found, wanted)


def test_weights_have_transformers_names_and_order_of_rows(checkpoint: Path, tmp_path: Path) -> None:
    base = load_base(str(checkpoint))
    file = write_gguf(base.model, base.tokenizer, tmp_path / "tiny.gguf", quantisation="f32")
    from_gguf, from_folder = GgufWeights(file), FolderWeights(checkpoint)
    names = {name: tensor.numpy() for name, tensor in base.model.state_dict().items() if name != "lm_head.weight"}
    for name, wanted in names.items():
        assert from_gguf.shape(name) == from_folder.shape(name) == wanted.shape
        np.testing.assert_array_equal(from_gguf.read(name), wanted, err_msg=name)
        np.testing.assert_array_equal(from_folder.read(name), wanted, err_msg=name)
        np.testing.assert_array_equal(from_gguf.read(name, 1, 3), wanted[1:3])
    assert from_gguf.shape("model.layers.0.self_attn.another.weight") is None
    ours, theirs = from_gguf.architecture, architecture_of_config(base.model.config.to_dict())
    for field in ours._fields:
        np.testing.assert_allclose(
            *(getattr(one, field) if field != "kind" else 0 for one in (ours, theirs)), rtol=1e-7, err_msg=field
        )
    np.testing.assert_allclose(ours.frequencies, base.model.base_model.rotary_emb.inv_freq.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 5e5},
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256, "rope_theta": 1e4,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)  # fmt: skip
def test_rotary_frequencies_are_transformers(rope: dict[str, Any]) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(**SIZES, num_attention_heads=4, rope_parameters=rope, max_position_embeddings=2048)
    wanted = LlamaRotaryEmbedding(config).inv_freq.numpy()
    np.testing.assert_allclose(architecture_of_config(config.to_dict()).frequencies, wanted, rtol=1e-6)
    older = {**config.to_dict(), "rope_parameters": None, "rope_theta": rope["rope_theta"], "rope_scaling": rope}
    np.testing.assert_allclose(architecture_of_config(json.loads(json.dumps(older))).frequencies, wanted, rtol=1e-6)


def with_rules(file: Path, rules: str, architecture: str = "llama") -> Path:
    """A GGUF file with the tables of a tiny tokenizer and next to no weights."""
    tokenizer = tiny_tokenizer()
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    writer = gguf.GGUFWriter(file, architecture)
    sizes = {"block_count": 1, "context_length": 512, "embedding_length": 64, "feed_forward_length": 64}
    for name, value in {**sizes, "head_count": 4, "head_count_kv": 2, "vocab_size": 400}.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rules)
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3)
    kinds[tokens.index("the")] = gguf.TokenType.USER_DEFINED
    writer.add_token_types(kinds)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("architecture", "rules"),
    [("llama", "smollm"), ("llama", "gpt-2"), ("llama", "default"), ("llama", "llama-bpe"), ("qwen2", "qwen2")],
)
def test_token_ids_are_transformers(architecture: str, rules: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    file = with_rules(tmp_path / "tiny.gguf", rules, architecture)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    ours = tokenizer_of(GgufFile(file).metadata, file.name)
    for text in [*TEXTS, *MORE_TEXTS]:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids)
    told = {number: (t.content, t.special) for number, t in theirs.added_tokens_decoder.items()}
    assert told == {number: (t.content, t.special) for number, t in ours.get_added_tokens_decoder().items()}


def test_token_ids_of_the_built_in_base_are_transformers(base_folder: Path, shared_data: Path) -> None:
    """From the GGUF file's tables, where that file is at hand, on texts in several scripts."""
    import gzip

    from tokenizers import Tokenizer

    from prorank.model.built_in import BUILT_IN, BaseError, base_file

    try:
        file = base_file(BUILT_IN["smollm2-135m"], local_files_only=True)
    except BaseError as error:
        pytest.skip(str(error))
    ours = tokenizer_of(GgufFile(file).metadata, file.name)
    theirs = Tokenizer.from_file(str(base_folder / "tokenizer.json"))
    for name in ("nfcorpus", "code-pairs", "xquad-zh", "xquad-hi", "xquad-ar"):
        with gzip.open(shared_data / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for line, _ in zip(lines, range(200), strict=False)]
        for a, b in zip(ours.encode_batch(texts), theirs.encode_batch(texts), strict=True):
            assert a.ids == b.ids


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    file = with_rules(tmp_path / "tiny.gguf", "smollm")
    content = file.read_bytes()
    for size in [0, 3, 4, 20, 100, 5000, len(content) // 2, len(content) - 1]:
        file.write_bytes(content[:size])
        with pytest.raises(BaseError, match=r"tiny\.gguf: (not a|cut off)") as error:
            GgufFile(file)
        assert "\n" not in str(error.value)
    file.write_bytes(content[:4] + b"\x09" + content[5:])
    with pytest.raises(BaseError, match="GGUF version 9"):
        GgufFile(file)
    with pytest.raises(BaseError, match="No such file"):
        GgufFile(tmp_path / "none.gguf")
    for damage in np.random.default_rng(0).integers(4, 400, 60):
        file.write_bytes(content[:damage] + b"\xff\xff\xff\xff\xff\xff\xff" + content[damage + 7 :])
        with contextlib.suppress(BaseError):  # a changed number may still make a file; nothing else may be raised
            GgufWeights(file)
    with pytest.raises(UnsupportedError, match="not gemma2"):
        GgufWeights(with_rules(tmp_path / "gemma.gguf", "smollm", "gemma2"))
    with pytest.raises(BaseError, match="rules 'tekken' is read with"):
        tokenizer_of(GgufFile(with_rules(tmp_path / "tekken.gguf", "tekken")).metadata, "tekken.gguf")
