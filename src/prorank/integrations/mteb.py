"""mteb: a cross-encoder with its metadata, for its reranking tasks.

import mteb
from prorank.integrations.mteb import ProRankModel

mteb.evaluate(ProRankModel(), mteb.get_task("AskUbuntuDupQuestions"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.model.hub import base_facts
from prorank.reranker import Reranker

require("mteb", extra="mteb")
from mteb.models import ModelMeta  # noqa: E402

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType

__all__ = ["ProRankModel", "model_meta"]


class ProRankModel:
    """mteb's ``CrossEncoderProtocol``: scores are margins, read with a task's instructions where it has some.

    Args:
        model_name: name of a model; default: the built-in reranker. A leading ``prorank/``, as in the metadata, is
            taken off.
        revision: not used; the metadata's is the fingerprint of weights, template and limits.
        device: as in :meth:`prorank.Reranker.from_pretrained`.
        reranker: one that is loaded already, instead of a name.
        options: further ones of :meth:`prorank.Reranker.from_pretrained`.
    """

    def __init__(
        self,
        model_name: str | None = None,
        revision: str | None = None,  # noqa: ARG002
        device: str | None = None,
        *,
        reranker: Reranker | None = None,
        **options: Any,
    ) -> None:
        name = model_name.removeprefix("prorank/") if model_name else None
        self.reranker = reranker or Reranker.from_pretrained(name, device=device, **options)
        self.mteb_model_meta = model_meta(self.reranker)

    def predict(
        self,
        inputs1: Any,
        inputs2: Any,
        *,
        task_metadata: TaskMetadata,  # noqa: ARG002
        hf_split: str,  # noqa: ARG002
        hf_subset: str,  # noqa: ARG002
        prompt_type: PromptType | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002  (batches are cut by tokens)
    ) -> npt.NDArray[np.float32]:
        """Margins ``(n,)`` of query n and document n.

        Args:
            inputs1: batches with the queries as ``text``, or as ``query`` where there is an ``instruction``.
            inputs2: batches with the documents as ``text``.
        """
        queries: list[tuple[str | None, str]] = []
        for batch in inputs1:
            instructions = batch.get("instruction") or [None] * len(batch["text"])
            plain = batch.get("query") or batch["text"]
            queries += [
                (instruction or None, query if instruction else text)
                for instruction, query, text in zip(instructions, plain, batch["text"], strict=True)
            ]
        documents = [text for batch in inputs2 for text in batch["text"]]
        if len(queries) != len(documents):
            raise ValueError(f"expected a document for each of {len(queries)} queries, got {len(documents)}")
        margins = np.zeros(len(queries), dtype=np.float32)
        for instruction in dict.fromkeys(one for one, _ in queries):
            places = [i for i, (one, _) in enumerate(queries) if one == instruction]
            pairs = [(queries[i][1], documents[i]) for i in places]
            margins[places] = self.reranker.score(pairs, instruction=instruction)
        return margins


def model_meta(reranker: Reranker) -> ModelMeta:
    """What mteb files results under: name, fingerprint, limits."""
    given = reranker.manifest
    base = base_facts(given.base_name, given.base_sha256) if given else None
    framework = {"torch": "PyTorch", "openvino": "OpenVINO", "onnx": "ONNX", "llamacpp": "GGUF"}
    engine = framework.get(reranker.backend.name.partition("-")[0])
    return ModelMeta(
        loader=ProRankModel,
        name=f"prorank/{reranker.name}",
        revision=reranker.fingerprint[:40],
        release_date=None,
        languages=None,
        n_parameters=base.parameters if base else None,
        memory_usage_mb=None,
        max_tokens=reranker.encoder.max_length,
        embed_dim=None,
        license=(base.licence.lower() or None) if base else None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=[engine] if engine else [],
        similarity_fn_name=None,
        use_instructions=True,
        training_datasets=None,
        adapted_from=base.hub_id if base else None,
        model_type=["cross-encoder"],
        modalities=["text"],
    )  # fmt: skip
