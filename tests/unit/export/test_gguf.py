"""GGUF files: read back by transformers and by the gguf package, token ids, rounding, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from prorank.export.gguf import QUANTISATIONS, write_gguf
from prorank.model.base import load_base
from testkit.tiny_models import make_tiny
from testkit.tiny_tokenizers import TEXTS, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Any:
    return load_base(str(make_tiny(tmp_path_factory.mktemp("model"), "llama", tokenizer))).model


def new_model(architecture: str, tokenizer: Any, **settings: Any) -> Any:
    """A random model with other settings than ``make_tiny``'s."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
    }  # fmt: skip
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](**{**sizes, **settings})).eval()


def fields(file: Path) -> dict[str, Any]:
    """Every metadata key and its value."""
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


def tensors(file: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_reads_the_same_model(tmp_path: Path, architecture: str, tied: bool) -> None:
    tokenizer = tiny_tokenizer("qwen2" if architecture == "qwen2" else "gpt-2")  # what transformers takes it for
    biases = {"attention_bias": False} if architecture == "llama" else {}
    model = new_model(architecture, tokenizer, tie_word_embeddings=tied, **biases)
    file = write_gguf(model, tokenizer, tmp_path / "tiny.gguf", quantisation="f32")
    assert ("output.weight" in tensors(file)) is not tied
    again = load_base(str(file))
    ids = torch.tensor([tokenizer.encode(TEXTS[0])])
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    for text in TEXTS:
        assert again.tokenizer.encode(text) == tokenizer.encode(text)


def test_sizes_and_rotation_of_every_tensor(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    file = write_gguf(llama, tokenizer, tmp_path / "tiny.gguf", quantisation="f32")
    weights = llama.state_dict()
    written = tensors(file)
    assert len(written) == len(weights)
    size, queries = 8, weights["model.layers.1.self_attn.q_proj.weight"].numpy()
    for head in range(4):  # llama.cpp rotates rows 2i and 2i + 1 together, transformers i and i + half
        for i in range(size // 2):
            ours = written["blk.1.attn_q.weight"].data[head * size + 2 * i : head * size + 2 * i + 2]
            np.testing.assert_array_equal(ours, queries[[head * size + i, head * size + i + size // 2]])
    np.testing.assert_array_equal(
        written["blk.0.ffn_down.weight"].data, weights["model.layers.0.mlp.down_proj.weight"].numpy()
    )
    data = fields(file)
    wanted = {
        "general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 32,
        "llama.feed_forward_length": 64, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8, "llama.rope.dimension_count": 8, "llama.context_length": 2048,
        "llama.vocab_size": len(tokenizer), "general.file_type": 0,
    }  # fmt: skip
    assert {key: data[key] for key in wanted} == wanted
    assert data["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(llama.config.rms_norm_eps)
    assert data["llama.rope.freq_base"] == llama.config.rope_parameters["rope_theta"]


def test_token_ids_are_the_tokenizers(tmp_path: Path, tokenizer: Any) -> None:
    model = new_model("llama", tokenizer, vocab_size=len(tokenizer) + 3)
    data = fields(write_gguf(model, tokenizer, tmp_path / "tiny.gguf", quantisation="f16"))
    tokens, kinds = data["tokenizer.ggml.tokens"], data["tokenizer.ggml.token_type"]
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert len(tokens) == len(tokenizer) + 3
    assert kinds[:3] == [3, 3, 3], "control"
    assert set(kinds[3 : len(tokenizer)]) == {1}
    assert kinds[-3:] == [5, 5, 5], "unused"
    assert data["tokenizer.ggml.bos_token_id"] == tokenizer.bos_token_id == 1
    assert data["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id == 2
    assert data["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize("rules", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_splitting_rules_have_llama_cpps_names(tmp_path: Path, rules: Any) -> None:
    tokenizer = tiny_tokenizer(rules)
    file = write_gguf(new_model("llama", tokenizer), tokenizer, tmp_path / "tiny.gguf", quantisation="f16")
    assert fields(file)["tokenizer.ggml.pre"] == rules


def test_unknown_splitting_rules_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    file = write_gguf(new_model("llama", tokenizer), tokenizer, tmp_path / "tiny.gguf", quantisation="f16")
    assert fields(file)["tokenizer.ggml.pre"] == "default"
    assert "splitting rules have no name in llama.cpp" in caplog.text


def test_a_known_sources_tokenizer_is_copied(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    source = write_gguf(llama, tokenizer, tmp_path / "source.gguf", quantisation="f32")
    plain = {key: value for key, value in fields(source).items() if key.startswith("tokenizer.")}
    changed = tmp_path / "changed.gguf"  # what only the source knows: another name of the rules, a template
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(changed, "llama")
    for key, value in plain.items():
        if key in ("tokenizer.ggml.pre", "tokenizer.chat_template"):
            continue
        field = reader.fields[key]
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, field.types[0])
    writer.add_tokenizer_pre("smollm")
    writer.add_chat_template("{{ 'from the source' }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    copied = fields(write_gguf(llama, tokenizer, tmp_path / "copy.gguf", quantisation="f16", source=changed))
    wanted = {**plain, "tokenizer.ggml.pre": "smollm", "tokenizer.chat_template": "{{ 'from the source' }}"}
    assert {key: value for key, value in copied.items() if key.startswith("tokenizer.")} == wanted

    with pytest.raises(ValueError, match=r"source .*source\.gguf: token \d+ is .*, the model's tokenizer has"):
        write_gguf(llama, tiny_tokenizer("smollm"), tmp_path / "no.gguf", quantisation="f16", source=source)
    wider = new_model("llama", tokenizer, vocab_size=len(tokenizer) + 1)
    with pytest.raises(ValueError, match=r"has 400 tokens and the model 401"):
        write_gguf(wider, tokenizer, tmp_path / "no.gguf", quantisation="f16", source=source)
    (tmp_path / "text.gguf").write_text("not a model at all, but long enough to have a header")
    for name, message in (("text.gguf", "cannot be read as GGUF"), ("absent.gguf", "no such file")):
        with pytest.raises(ValueError, match=message):
            write_gguf(llama, tokenizer, tmp_path / "no.gguf", quantisation="f16", source=tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        "changed.gguf", "copy.gguf", "source.gguf", "text.gguf"
    ], "a refused export leaves nothing behind"  # fmt: skip


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_rounding_of_matrices_and_none_of_norms(tmp_path: Path, tokenizer: Any, quantisation: Any) -> None:
    model = new_model("qwen2", tokenizer)  # rows of 32, and of 48 in ffn_down: no multiple of 32
    written = tensors(write_gguf(model, tokenizer, tmp_path / "tiny.gguf", quantisation=quantisation))
    kinds = {name: tensor.tensor_type.name.lower() for name, tensor in written.items()}
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == quantisation
    assert kinds["blk.0.ffn_down.weight"] == {"q8_0": "f16"}.get(quantisation, quantisation)
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.0.attn_q.bias"] == "f32"
    weight = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    got = gguf.quants.dequantize(written["blk.0.ffn_up.weight"].data, written["blk.0.ffn_up.weight"].tensor_type)
    if quantisation == "q8_0":  # 127 steps to the largest of 32 weights; half a step, and the scale's own rounding
        step = np.abs(weight).max(axis=1, keepdims=True) / 127
        assert (np.abs(got - weight) <= step * (0.5 + 127 * 2**-11)).all()
        assert (np.abs(got - weight) > step * 0.25).any(), "it is rounded to 8 bits indeed"
    else:
        np.testing.assert_array_equal(got, weight.astype(np.float16 if quantisation == "f16" else np.float32))


def test_scaled_rotation_of_llama_3(tmp_path: Path, tokenizer: Any) -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    model = new_model("llama", tokenizer, rope_parameters=rope)
    file = write_gguf(model, tokenizer, tmp_path / "tiny.gguf", quantisation="f32")
    # Head size 8: wavelengths 2 pi theta^(i/4) of 6.28, 62.8, 628, 6283 tokens; below 64/4 unscaled, above 64 by 8,
    # and in between by the mixture of both.
    mixture = (64 / (2 * math.pi * 10) - 1) / (4 - 1)
    wanted = [1.0, 1 / ((1 - mixture) / 8 + mixture), 8.0, 8.0]
    np.testing.assert_allclose(tensors(file)["rope_freqs.weight"].data, wanted, rtol=1e-5)


def test_what_does_not_fit_is_refused(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    window = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
    cases = [
        (new_model("gemma3_text", tokenizer, head_dim=8), "architecture 'gemma3_text' cannot be written"),
        (new_model("qwen2", tokenizer, **window), "sliding windows"),
        (new_model("llama", tokenizer, rope_parameters=yarn), "rope_type 'yarn' of llama"),
        (new_model("llama", tokenizer, hidden_act="gelu"), "hidden_act 'gelu'"),
        (new_model("llama", tokenizer, vocab_size=300), "it has 400 tokens and the model 300"),
        (get_peft_model(new_model("llama", tokenizer), LoraConfig(r=2, target_modules=["q_proj"])), "not merged"),
    ]
    huge, broken = new_model("llama", tokenizer), new_model("llama", tokenizer)
    huge.model.layers[1].mlp.up_proj.weight.data[0, 0] = 70000.0
    broken.model.norm.weight.data[0] = float("nan")
    cases += [(huge, r"layers\.1\.mlp\.up_proj\.weight exceeds 65504"), (broken, r"model\.norm\.weight holds NaN")]
    for model, message in cases:
        with pytest.raises(ValueError, match=message):
            write_gguf(model, tokenizer, tmp_path / "tiny.gguf", quantisation="f16")
    with pytest.raises(ValueError, match="quantisation must be one of f32, f16, q8_0"):
        write_gguf(llama, tokenizer, tmp_path / "tiny.gguf", quantisation="q4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no folder"):
        write_gguf(llama, tokenizer, tmp_path / "absent" / "tiny.gguf", quantisation="f16")
    assert not [file for file in tmp_path.iterdir() if file.is_file()]
    write_gguf(huge, tokenizer, tmp_path / "tiny.gguf", quantisation="f32")


def test_an_error_leaves_the_old_file(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    file = write_gguf(llama, tokenizer, tmp_path / "tiny.gguf", quantisation="f16")
    before = file.read_bytes()
    with pytest.raises(ValueError, match="source"):
        write_gguf(llama, tokenizer, file, quantisation="f32", source=tmp_path / "absent.gguf")
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["tiny.gguf"]
