"""What tests of our own engine share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.backends.graph import HEAD
from prorank.backends.native import engine, levels

COMMON: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "initializer_range": 0.1}
"""With larger random weights bfloat16 alone moves margins by a third of their deviation."""

HERE = levels.available(levels.processor_features())
"""The levels that this processor has."""

runs_here = pytest.mark.skipif(not HERE, reason="this processor has none of our engine's instruction sets")


def each_level() -> Any:
    """Parametrises ``level`` with the names of all; those that the processor lacks are skipped."""
    marks = {level.name: [] if level in HERE else [pytest.mark.skip(reason="not on this processor")]
             for level in levels.LEVELS}  # fmt: skip
    return pytest.mark.parametrize("level", [pytest.param(name, marks=mark) for name, mark in marks.items()])


def write_random(
    folder: Path, *, size: int = 16, heads: int = 4, key_heads: int = 2, hidden: int = 128, inner: int = 192,
    layers: int = 3, vocabulary: int = 50, biases: bool = False, norms: bool = False, seed: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A random model of the engine's own layout, with its label rows; returns its tensors."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(seed)

    def floats(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.normal(size=shape) * scale).astype(np.float32)

    tensors = {
        "embeddings": floats(vocabulary, hidden).astype(np.float16),
        "norm": 1 + floats(hidden, scale=0.1),
        "frequencies": (10000.0 ** -(np.arange(size // 2) / (size // 2))).astype(np.float32),
    }
    shapes = {
        "qkv": (-(-(heads + 2 * key_heads) * size // 64) * 64, hidden),
        "out": (hidden, heads * size),
        "gate_up": (2 * inner, hidden),
        "down": (hidden, inner),
    }
    for i in range(layers):
        for part, (outputs, inputs) in shapes.items():
            tensors[f"layers.{i}.{part}.weight"] = rng.integers(-128, 128, (outputs, inputs), dtype=np.int8)
            tensors[f"layers.{i}.{part}.scale"] = (rng.uniform(0.5, 1.5, (outputs, inputs // 64)) / 1200).astype("f4")
            if biases and part == "qkv":
                tensors[f"layers.{i}.{part}.bias"] = floats(outputs)
        for name in ("attention_norm", "block_norm"):
            tensors[f"layers.{i}.{name}"] = 1 + floats(hidden, scale=0.1)
        if norms:
            for name in ("query_norm", "key_norm"):
                tensors[f"layers.{i}.{name}"] = 1 + floats(size, scale=0.1)
    facts = {
        "format": engine.FORMAT, "layers": layers, "hidden": hidden, "heads": heads, "key_heads": key_heads,
        "size": size, "inner": inner, "epsilon": 1e-5, "rotary_scale": 1.0,
    }  # fmt: skip
    save_file(tensors, folder / engine.WEIGHTS, metadata={name: str(value) for name, value in facts.items()})
    save_file({"rows": floats(2, hidden), "bias": np.zeros(2, np.float32)}, folder / HEAD)
    return tensors


def small_native(folder: Path) -> Path:
    """An exported folder of our own engine with random weights, which opens without PyTorch and transformers."""
    import json

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from prorank.files import sha256_file
    from prorank.model.manifest import Manifest, write_manifest
    from prorank.prompt.presets import PRESETS
    from testkit.tiny_tokenizers import SPECIAL, TEXTS

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_random(folder, vocabulary=tokenizer.get_vocab_size())
    (folder / "config.json").write_text(json.dumps({"hidden_size": 128}), "utf-8")
    ids = [tokenizer.token_to_id(word) for word in ("0", "1")]
    files = {file.name: sha256_file(file) for file in sorted(folder.glob("*.safetensors"))}
    manifest = Manifest(PRESETS["prorank"], (ids[0], ids[1]), backend="native", precision="int8", files=files)
    write_manifest(folder, manifest)
    return folder
