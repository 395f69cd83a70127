"""A sequence-classification checkpoint: the margin as the one output of a linear layer, for engines that pool.

The score's weight is row("1") - row("0") of the output matrix, so that the layer's output is our margin. What else a
folder needs to be served by its own template stands in ``chat_template.jinja``.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from prorank.model.cross_encoder import jinja_of

__all__ = ["write_score_template", "write_seq_cls"]


def write_seq_cls(model: Any, label_ids: tuple[int, int], pad_id: int, folder: Path) -> Path:
    """Write ``config.json`` and ``model.safetensors``: num_labels 1, float32, no bias.

    Args:
        model: a transformers causal LM in float32, whose decoder is written as it is.
        label_ids: (irrelevant, relevant) token ids.
        pad_id: what pads the rows of a batch; no prompt may end with it.

    Raises:
        ValueError: transformers has no such classifier, or the margin is not linear in the last state (capped logits,
            an output bias).
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    config = copy.deepcopy(model.config)
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if kind is None:
        raise ValueError(f"export: transformers has no sequence classification for {config.model_type}")
    head = model.get_output_embeddings()
    irrelevant, relevant = label_ids
    if getattr(config.get_text_config(), "final_logit_softcapping", None):
        raise ValueError(f"export: {config.model_type} caps its logits; their difference is no linear layer's output")
    if head.bias is not None and head.bias[relevant] != head.bias[irrelevant]:
        raise ValueError("export: the output matrix has a bias, which a score layer has not")
    config.update({"num_labels": 1, "pad_token_id": pad_id, "use_cache": False, "use_sep_token": False})
    with torch.device("meta"):  # nothing is allocated: decoder and score follow
        classifier = kind(config)
    setattr(classifier, classifier.base_model_prefix, model.base_model)
    rows = head.weight.detach()
    classifier.score.weight = torch.nn.Parameter((rows[relevant].float() - rows[irrelevant].float())[None])
    classifier.save_pretrained(folder, safe_serialization=True)
    return folder


def write_score_template(folder: Path, template: Any) -> None:
    """``chat_template.jinja`` over messages with roles query and document: what engines call a score template."""
    (folder / "chat_template.jinja").write_text(jinja_of(template), "utf-8")
