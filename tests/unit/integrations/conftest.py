"""One reranker for all adapters: real prompts, scores that are a hash of the ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from prorank import Reranker
from prorank.backends.fake import FakeBackend
from prorank.prompt.derive import resolve_template
from prorank.prompt.encoder import PromptEncoder


@pytest.fixture(scope="module")
def reranker(base_folder: Path) -> Reranker:
    from prorank.model.base import load_tokenizer

    tokenizer = load_tokenizer(str(base_folder))
    encoder = PromptEncoder(tokenizer, resolve_template(None, tokenizer), max_length=128, long_documents="excerpt")
    return Reranker(FakeBackend(), encoder, name="fake")
