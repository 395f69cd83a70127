"""A score must not depend on the company in which it was computed: batch size, order, copies, padding, sharing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from prorank import Reranker
from prorank.backends.devices import pick_dtype
from prorank.backends.tolerances import company_limit

QUERY = "how do vaccines create immunity"


def documents(count: int = 100) -> list[str]:
    """Texts of 3 to 160 words, most of them short, some of them equal."""
    rng = np.random.default_rng(0)
    words = "germ cell immune vaccine bread market antibody memory town the a of and learns".split()  # noqa: SIM905
    texts = [" ".join(rng.choice(words, int(rng.integers(3, 160 if i % 6 == 0 else 64)))) for i in range(count)]
    texts[7] = texts[3]
    return texts


def count_for(reranker: Reranker, most: int) -> int:
    """Fewer documents in bfloat16, and very few where the processor imitates it, ten times as slowly."""
    if reranker.backend.name.endswith("float32"):
        return most
    return 40 if pick_dtype(None, torch.device("cpu")) is torch.bfloat16 else 12


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def reranker(request: pytest.FixtureRequest, base_folder: Path) -> Reranker:
    """The built-in base in both precisions."""
    return Reranker.from_pretrained(base_folder, dtype=request.param)


def test_company_does_not_matter(reranker: Reranker) -> None:
    tolerance = company_limit(reranker.backend.name)
    texts = documents(count_for(reranker, 100))
    margins = reranker.margins(QUERY, texts)
    assert margins.std() > 0.05
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = reranker.margins(QUERY, [texts[i] for i in order])
    np.testing.assert_allclose(shuffled, margins[order], atol=tolerance, err_msg="document order")
    small = reranker.margins(QUERY, texts, batch_tokens=300)
    np.testing.assert_allclose(small, margins, atol=tolerance, err_msg="batch size")
    alone = np.concatenate([reranker.margins(QUERY, [text]) for text in texts[:10]])
    np.testing.assert_allclose(alone, margins[:10], atol=tolerance, err_msg="padding")
    assert margins[7] == margins[3], "copies are scored once"
    if reranker.backend.name == "torch-cpu-float32":
        assert kendalltau(margins, small).statistic >= 0.999
        assert kendalltau(margins[order], shuffled).statistic >= 0.999


def test_sharing_the_prefix_does_not_matter(reranker: Reranker, base_folder: Path) -> None:
    dtype = "float32" if reranker.backend.name.endswith("float32") else "bfloat16"
    plain = Reranker.from_pretrained(base_folder, dtype=dtype, share_prefix=False)
    texts = documents(count_for(reranker, 40))
    np.testing.assert_allclose(
        plain.margins(QUERY, texts), reranker.margins(QUERY, texts), atol=company_limit(reranker.backend.name)
    )


def test_mixed_queries_equal_single_ones(tiny_llama_dir: Path) -> None:
    reranker = Reranker.from_pretrained(tiny_llama_dir, dtype="float32")
    texts = documents(12)
    queries = [QUERY, "bread", "who wrote Emma", QUERY + "?"]
    pairs = [(query, text) for text in texts for query in queries[: 1 + len(text) % 4]]
    together = reranker.score(pairs)
    alone = [reranker.margins(query, [text])[0] for query, text in pairs]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    for instruction in ("Find facts.", ""):
        single = [reranker.margins(query, [text], instruction=instruction)[0] for query, text in pairs]
        np.testing.assert_allclose(reranker.score(pairs, instruction=instruction), single, atol=1e-4)


def test_windows_take_the_best(tiny_llama_dir: Path) -> None:
    windows = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=128, long_documents="max_window")
    truncated = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=128)
    texts = documents(12)
    encoded = windows.encode(QUERY, texts)
    assert len(encoded.row_document) > len(texts)
    best = windows.margins(QUERY, texts)
    first = truncated.margins(QUERY, texts)
    assert (best >= first - 1e-4).all()
    short = [i for i in range(len(texts)) if encoded.row_document.count(i) == 1]
    np.testing.assert_allclose(best[short], first[short], atol=1e-4)
