"""Every route over exported models: the same answers as over the PyTorch model that they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_http_formats import BODIES, scores_of

from prorank import Reranker
from prorank.backends.native import compiler
from prorank.export.targets import export
from testkit.native import COMMON, runs_here
from testkit.tiny_models import make_tiny

TOLERANCES = {"native-int8": 0.15, "openvino-f32": 1e-4, "onnx": 1e-4}
"""Root mean square of the differences, in deviations of the margins: as in tests/parity."""
LIBRARIES = {"openvino-f32": "openvino", "onnx": "onnxruntime"}

QUERY = "how do vaccines create immunity"
DOCUMENTS = [
    "Cells remember a germ.",
    "Bread needs flour, and it is a long sentence about bread. " * 20,
    "",
    "a <|im_end|> b <|im_start|>assistant 1, and so on for some words",
    "Прививка учит иммунитет 🦠🦠🦠 и ещё несколько слов, чтобы было длиннее",
    "免疫系统会记住病菌，疫苗教会它。" * 8,
]
OBJECTS = [{"title": f"No. {place}", "body": text} for place, text in enumerate(DOCUMENTS)]


def bodies() -> list[tuple[str, dict[str, Any]]]:
    """(route, body): every route plainly, and with what cuts or joins texts there."""
    lists = {"query": QUERY, "documents": DOCUMENTS}
    tei = {"query": QUERY, "texts": DOCUMENTS, "truncate": True}
    pairs = {"text_1": QUERY, "text_2": DOCUMENTS}
    found = [(path, lists) for path in ("/v1/rerank", "/v2/rerank", "/voyage/v1/rerank", "/infinity/rerank", "/rerank")]
    found += [("/rerank", tei), ("/rerank", tei | {"truncation_direction": "Left"})]
    found += [("/score", pairs), ("/v1/score", pairs)]
    found += [("/v2/rerank", lists | {"max_tokens_per_doc": count}) for count in (1, 5, 30, 150, 4096)]
    found += [("/v1/rerank", {"query": QUERY, "documents": OBJECTS, "rank_fields": ["title", "body"]})]
    return [(path, body | {"raw_scores": True}) for path, body in found]


REFUSED = [
    ("/rerank", {"query": QUERY, "texts": DOCUMENTS}, 413),
    ("/voyage/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "truncation": False}, 400),
    ("/v2/rerank", {"query": QUERY, "documents": DOCUMENTS, "max_tokens_per_doc": 0}, 400),
]


@pytest.fixture(scope="module")
def reference(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("served")
    make_tiny(folder, "llama", AutoTokenizer.from_pretrained(base_folder), layers=3, **COMMON)
    return Reranker.from_pretrained(folder, dtype="float32", device="cpu", max_length=160)


@pytest.mark.parametrize("target", [pytest.param("native-int8", marks=runs_here), *LIBRARIES])
def test_every_route_answers_as_over_pytorch(serve: Any, reference: Reranker, target: str, tmp_path: Path) -> None:
    if target in LIBRARIES:
        pytest.importorskip(LIBRARIES[target])
    else:
        try:
            compiler.compiler()
        except ImportError as error:
            pytest.skip(str(error))
    exported = Reranker.from_pretrained(export(reference, target, tmp_path / target), threads=1)
    plain, other = serve(reference), serve(exported)
    for path, body in bodies():
        expected, response = plain.post(path, json=body), other.post(path, json=body)
        assert (expected.status_code, response.status_code) == (200, 200), (path, response.text)
        wanted, got = scores_of(expected.json()), scores_of(response.json())
        assert got.keys() == wanted.keys() == set(range(len(DOCUMENTS)))
        margins = np.array([wanted[i] for i in sorted(wanted)])
        differences = np.array([got[i] for i in sorted(got)]) - margins
        assert np.sqrt(np.mean(differences**2)) <= TOLERANCES[target] * max(margins.std(), 0.1), (path, body)
    for path, body, status in REFUSED:
        refused = other.post(path, json=body)
        assert refused.status_code == status
        same = plain.post(path, json=body).json()
        assert {**refused.json(), "id": ""} == {**same, "id": ""}
    assert {path for path, _ in bodies()} == set(BODIES)
