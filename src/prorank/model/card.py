"""The model card of a checkpoint or an export: front matter that the Hugging Face hub reads, and how to use it.

It says what the manifest says. What the manifest does not know (a licence, data on the hub, languages) is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prorank.files import write_atomic
from prorank.model.hub import base_facts
from prorank.model.manifest import Manifest

__all__ = ["CARD", "CardFacts", "write_card"]

CARD = "README.md"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_TAGS = {"openvino": "openvino", "onnx": "onnx", "llamacpp": "gguf"}


@dataclass(frozen=True)
class CardFacts:
    """What a card says beyond the manifest."""

    repository: str | None = None
    """Hub id that the examples name; default: the folder's name."""
    license: str | None = None
    """The hub's identifier, such as apache-2.0; default: the base's, where it is known."""
    datasets: Sequence[str] = ()
    """Hub ids of the training data."""
    language: Sequence[str] = ()
    """ISO 639-1 codes."""

    def __post_init__(self) -> None:
        if self.license is not None and _LICENCE.fullmatch(self.license) is None:
            raise ValueError(f"license: expected an identifier of the hub such as apache-2.0, got {self.license!r}")
        for name in ("datasets", "language"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a list, got one string")


def write_card(folder: Path, manifest: Manifest, *, name: str, facts: CardFacts | None = None) -> Path:
    """Write ``README.md``: front matter (``pipeline_tag: text-ranking`` and others), then what the model is.

    Args:
        name: what the model is called; a path is cut to its last part.
    """
    from huggingface_hub import ModelCardData

    facts = facts or CardFacts()
    base = base_facts(manifest.base_name, manifest.base_sha256)
    adapter = manifest.kind == "adapter"
    fields: dict[str, Any] = {
        "pipeline_tag": "text-ranking",
        "library_name": "prorank" if manifest.backend != "torch" else "peft" if adapter else "sentence-transformers",
        "tags": _tags(manifest),
        "license": facts.license or base.licence.lower() or None,
        "base_model": base.hub_id,
        "base_model_relation": _relation(manifest) if base.hub_id else None,
        "datasets": list(facts.datasets) or None,
        "language": list(facts.language) or None,
    }
    data = ModelCardData(**{key: value for key, value in fields.items() if value is not None})
    text = f"---\n{data.to_yaml()}\n---\n\n{_body(manifest, facts.repository or Path(name).name)}"
    write_atomic(folder / CARD, text)
    return folder / CARD


def _tags(manifest: Manifest) -> list[str]:
    tags = ["prorank", "reranker", "text-ranking"]
    if manifest.backend == "torch":
        return [*tags, *(["lora"] if manifest.kind == "adapter" else ["cross-encoder"])]
    return [*tags, *(tag for tag in (_TAGS.get(manifest.backend), manifest.precision) if tag)]


def _relation(manifest: Manifest) -> str:
    if manifest.kind == "adapter":
        return "adapter"
    return "quantized" if manifest.precision == "int8" else "finetune"


def _body(manifest: Manifest, name: str) -> str:
    kind = {"adapter": "a LoRA adapter", "model": "a whole model"}[manifest.kind]
    if manifest.backend != "torch":
        kind = f"an export for {manifest.backend} ({manifest.precision})"
    stage = {
        "base": "not trained as a reranker",
        "warmup": "trained by warmup",
        "refine": "trained by warmup and refine",
    }
    base = base_facts(manifest.base_name, manifest.base_sha256).hub_id
    on = f" on {base}" if base else ""
    low, high = manifest.template.label_words
    parts = [
        f"# {name}\n",
        f"A document reranker: {kind}{on}, {stage.get(manifest.stage, manifest.stage)}. It reads a query and "
        f'a document and gives a margin, logit("{high}") - logit("{low}"), to order documents by.\n',
        f'```python\nfrom prorank import Reranker\n\nreranker = Reranker.from_pretrained("{name}")\n'
        'for result in reranker.rank("how do vaccines create immunity", documents, top_k=10):\n'
        '    print(f"{result.probability:.3f}  {result.text}")\n```\n',
    ]
    if manifest.backend == "torch" and manifest.kind == "model":
        parts.append(
            f'As a sentence-transformers `CrossEncoder("{name}")` it gives the same margins for texts that fit'
            + ("" if manifest.long_documents == "truncate" else "; longer ones it cuts at their end")
            + ".\n"
        )
    parts.append(
        "| | |\n|---|---|\n"
        f"| tokens of a prompt | {manifest.max_length} |\n"
        f"| long documents | {manifest.long_documents} |\n"
        f"| prompt template | {manifest.template.name} |\n"
        f"| probability | {_probability(manifest)} |\n"
    )
    return "\n".join(parts)


def _probability(manifest: Manifest) -> str:
    if manifest.calibration is None:
        return "not calibrated"
    slope, intercept = manifest.calibration
    return f"sigmoid({slope:.3f} * margin {intercept:+.3f})"
