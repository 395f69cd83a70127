"""Fixtures for all tests: every test has its own home and cache; models are tiny, or the built-in base."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testkit.tiny_models import ARCHITECTURES, make_tiny

REPO = Path(__file__).resolve().parent.parent
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The built-in base, unpacked: from the user's own cache, or fetched once."""
    from prorank.model.base import BaseError, resolve_base

    try:
        return Path(resolve_base("smollm2-135m"))
    except BaseError as error:
        pytest.skip(f"the built-in base is out of reach: {error}")


@pytest.fixture(scope="session")
def opened_engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Which engines open here without a crash: found out once for all tests, as for one user once a machine."""
    return tmp_path_factory.mktemp("opened")


@pytest.fixture(autouse=True)
def own_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, opened_engines: Path
) -> Path:
    """A home and a cache of the test's own; the unpacked base is linked into it where the test asks for it."""
    base = request.getfixturevalue("base_folder") if "base_folder" in request.fixturenames else None
    home = tmp_path / "home"
    cache = home / "cache"
    (cache / "bases").mkdir(parents=True)
    if base is not None:
        (cache / "bases" / base.name).symlink_to(base)
    (cache / "opened").symlink_to(opened_engines)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PRORANK_CACHE", str(cache))
    monkeypatch.delenv("PRORANK_DEBUG", raising=False)
    return home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real collections, beside the checkout; not part of the project."""
    folder = Path(os.environ.get("PRORANK_DATA") or REPO.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real collections here: set PRORANK_DATA to their folder (docs/data.md)")
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
    from prorank.prompt.encoder import PromptEncoder
    from prorank.prompt.presets import PRESETS
    from prorank.reranker import Reranker

    return Reranker(FakeBackend(), PromptEncoder(tokenizer, PRESETS["prorank"]), name="fake")


@pytest.fixture(scope="session")
def base_model(base_folder: Path) -> Iterator[Any]:
    """A reranker on the built-in base in float32."""
    from prorank.reranker import Reranker

    return Reranker.from_pretrained(str(base_folder), dtype="float32")
