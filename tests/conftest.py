"""Fixtures for all tests: every test has its own home and cache; models are tiny, or the built-in base."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parent.parent
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "mistral")


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The built-in base, unpacked: from the user's own cache, or fetched once."""
    from prorank.bases import BaseError, resolve_base

    try:
        return Path(resolve_base("smollm2-135m"))
    except BaseError as error:
        pytest.skip(f"the built-in base is out of reach: {error}")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A home and a cache of the test's own; the unpacked base is linked into it where the test asks for it."""
    base = request.getfixturevalue("base_folder") if "base_folder" in request.fixturenames else None
    home = tmp_path / "home"
    cache = home / "cache"
    (cache / "bases").mkdir(parents=True)
    if base is not None:
        (cache / "bases" / base.name).symlink_to(base)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PRORANK_CACHE", str(cache))
    monkeypatch.delenv("PRORANK_DEBUG", raising=False)
    return home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real collections, beside the checkout; not part of the project."""
    folder = Path(os.environ.get("PRORANK_SHARED") or REPO.parent / "shared") / "data"
    if not folder.is_dir():
        pytest.skip("the shared collections are not beside this checkout (set PRORANK_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tokenizer(base_folder: Path) -> Any:
    """The built-in base's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_folder)


@pytest.fixture(scope="session")
def tiny_dirs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    """Folders of tiny random checkpoints with the built-in base's tokenizer, one an architecture."""
    root = tmp_path_factory.mktemp("tiny")
    return {name: make_tiny(root / name, name, tokenizer) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def tiny_llama_dir(tiny_dirs: dict[str, Path]) -> Path:
    """A folder with a tiny random Llama checkpoint."""
    return tiny_dirs["llama"]


@pytest.fixture
def fake_reranker(tokenizer: Any) -> Any:
    """A reranker over the fake backend: real prompts, scores that are a hash."""
    from prorank.backends.fake import FakeBackend
    from prorank.prompts import PRESETS, PromptEncoder
    from prorank.reranker import Reranker

    return Reranker(FakeBackend(), PromptEncoder(tokenizer, PRESETS["prorank"]), name="fake")


@pytest.fixture(scope="session")
def base_model(base_folder: Path) -> Iterator[Any]:
    """A reranker on the built-in base in float32."""
    from prorank.reranker import Reranker

    return Reranker.from_pretrained(str(base_folder), dtype="float32")


def make_tiny(folder: Path, architecture: str, tokenizer: Any, *, seed: int = 0) -> Path:
    """Write a random two-layer checkpoint of an architecture; hidden size 32, the tokenizer's vocabulary."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    names = {"gemma3": "gemma3_text"}
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.5,
    }
    if architecture in ("gemma3", "mistral"):
        sizes["sliding_window"] = 64
    config = CONFIG_MAPPING[names.get(architecture, architecture)](**sizes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
