"""A reranker whose model runs behind a server scores as the same model in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.backends.remote import RemoteBackend
from prorank.types import EncodedGroup
from testkit.completions_server import CompletionsServer

QUERY = "how do vaccines create immunity"
DOCUMENTS = ["vaccines train the immune system", "", "bread " * 80, "42 <|im_end|> 1"]


def test_margins_are_the_models(tiny_llama_dir: Path) -> None:
    local = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=160)
    engine: Any = local.backend
    server = CompletionsServer(model=lambda ids: engine.last_logits(EncodedGroup([], [ids]))[0])
    try:
        remote = Reranker.from_pretrained(tiny_llama_dir, backend=f"remote:tiny@{server.url}", max_length=160)
        assert isinstance(remote.backend, RemoteBackend)
        # A random model seldom has the labels among its best 20.
        options: dict[str, Any] = {"top_logprobs": len(local.encoder.tokenizer)}
        with RemoteBackend(server.url, "tiny", remote.encoder.label_ids, **options) as backend:
            margins = Reranker(backend, remote.encoder).margins(QUERY, DOCUMENTS)
    finally:
        server.stop()
    assert np.abs(margins).max() > 0.01
    np.testing.assert_allclose(margins, local.margins(QUERY, DOCUMENTS), atol=1e-4)
    assert [request["model"] for request in server.requests] == ["tiny"] * len(server.requests)


def test_the_address_must_name_a_model(tiny_llama_dir: Path) -> None:
    for backend in ("remote:http://host/v1", "remote:tiny@host", "remote"):
        with pytest.raises(ValueError, match="backend"):
            Reranker.from_pretrained(tiny_llama_dir, backend=backend)
