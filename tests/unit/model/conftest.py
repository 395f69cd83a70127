"""A base and an adapter on it that our own engine takes, for the tests of either."""

from __future__ import annotations

from pathlib import Path

import pytest

from testkit.adapters import SIZES, with_adapter
from testkit.tiny_models import make_tiny
from testkit.tiny_tokenizers import tiny_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base"), "qwen2", tiny_tokenizer(), **SIZES)


@pytest.fixture(scope="module")
def checkpoint(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_adapter(base, tmp_path_factory.mktemp("checkpoint") / "mine")
