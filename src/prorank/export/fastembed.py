"""A checkpoint as fastembed's ``TextCrossEncoder`` takes custom models: whole prompts in, one margin a row out.

fastembed knows no prompt template: it tokenises (query, document) pairs by ``tokenizer.json`` and runs a graph of
``input_ids`` and ``attention_mask``. So the template's own tokens go into the tokenizer, as the post-processor of
pairs; the graph finds each row's last token and multiplies the difference of the two label rows.

What is lost: the query has no limit of its own, a document that is too long is cut at its end, and the instruction is
the template's default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from prorank._optional import require
from prorank.backends.onnx import GRAPH
from prorank.backends.torch import label_rows
from prorank.export.graph import ScoringGraph
from prorank.export.onnx import write_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prorank.prompt.encoder import PromptEncoder

__all__ = ["FastembedFolder", "write_fastembed"]

_PROBES = (
    ("how do vaccines work?", "Vaccines train cells."),
    ("  a query ", "\n a document, and <|im_end|> in it </s> "),
    ("查询", "naïve café \U0001f600"),
)


def write_fastembed(model: Any, encoder: PromptEncoder, folder: Path, *, weights: str = "float32") -> None:
    """Write ``model.onnx``, ``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        model: float32, on the CPU.
        weights: ``float32`` or ``int8``, as in :func:`prorank.export.onnx.write_onnx`.

    Raises:
        ValueError: query and document do not stand in pieces of their own, or the tokenizer cannot be written so that
            pairs become the prompts' tokens.
        ImportError: onnx (and for int8 onnxruntime) is not installed.
    """
    require("onnx", extra="onnx")
    _write_tokenizer(encoder, folder)
    graph = _MarginGraph(model, encoder.label_ids).eval()
    example = (torch.tensor([[1, 2, 3], [3, 2, 1]]), torch.tensor([[1, 1, 1], [1, 1, 0]]))
    axes = {name: {0: "n", 1: "width"} for name in ("input_ids", "attention_mask")}
    write_graph(graph, example, tuple(axes), ("margins",), axes, folder, weights)


class FastembedFolder:
    """Scores with such a folder as fastembed does, by the tokenizer and ONNX Runtime alone: for the parity report."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        runtime = require("onnxruntime", extra="onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(settings["model_max_length"])

    def margins(self, query: str, documents: Sequence[str]) -> npt.NDArray[np.float32]:
        """``(n,)`` float32, in input order."""
        encoded = self._tokenizer.encode_batch([(query, text) for text in documents])
        inputs = {
            "input_ids": np.array([one.ids for one in encoded], dtype=np.int64),
            "attention_mask": np.array([one.attention_mask for one in encoded], dtype=np.int64),
        }
        margins: npt.NDArray[np.float32] = self._session.run(None, inputs)[0][:, 0]
        return margins


class _MarginGraph(torch.nn.Module):
    """Whole prompts, padded on the right -> margins ``(n, 1)``."""

    def __init__(self, model: Any, label_ids: tuple[int, int]) -> None:
        super().__init__()
        self.scoring = ScoringGraph(model)
        rows, bias = label_rows(model, label_ids)
        self.register_buffer("row", (rows[1] - rows[0]).detach().clone())
        self.bias = float(bias[1] - bias[0])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Both ``(n, width)`` int64."""
        scoring = self.scoring
        past = torch.zeros(2 * scoring.layers, 1, scoring.heads, 1, scoring.size)  # nobody sees it
        one = torch.ones(1, dtype=torch.int64)
        states, _ = scoring(input_ids, attention_mask.sum(1) - 1, past, one, one)
        margins: torch.Tensor = (states * self.row).sum(-1, keepdim=True) + self.bias
        return margins


def _write_tokenizer(encoder: PromptEncoder, folder: Path) -> None:
    from tokenizers import Tokenizer, normalizers, processors

    pieces = [piece.text for piece in encoder.template.pieces if piece.kind == "user"]
    if "{query}" not in pieces or "{document}" not in pieces:
        raise ValueError(
            f"export: fastembed takes templates with query and document in pieces of their own; "
            f"{encoder.template.name!r} has other words beside them"
        )
    fast = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise ValueError("export: fastembed takes tokenizers that are a tokenizer.json; this one is none")
    tokenizer = Tokenizer.from_str(_without_special(json.loads(fast.to_str()), encoder))
    if encoder.template.strip:
        own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), *own])
    prefix, of_instruction = encoder.encode_prefix("")
    fixed = {"<P>": prefix[:of_instruction], "<M>": prefix[of_instruction:], "<S>": encoder.suffix_ids}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<P> $A <S>",
        pair="<P> $A <M> $B <S>",
        special_tokens=[{"id": name, "ids": ids, "tokens": [name] * len(ids)} for name, ids in fixed.items()],
    )
    pad = encoder.suffix_ids[-1]  # any: rows are padded behind their last token
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=pad, pad_token="<S>")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "model_max_length": encoder.max_length, "pad_token": "<S>", "padding_side": "right", "truncation_side": "right",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    _check(Tokenizer.from_file(str(folder / "tokenizer.json")), encoder)


def _without_special(data: dict[str, Any], encoder: PromptEncoder) -> str:
    """tokenizer.json in which no text matches a special token; ids of all other tokens stay.

    One that stands in the vocabulary is no longer an added token; any other must keep its place among them, with a
    content that no text has.
    """
    static = "".join(piece.text for piece in encoder.template.pieces if piece.kind == "static")
    vocabulary = data["model"].get("vocab", {})
    kept = []
    for token in data["added_tokens"]:
        if token["special"] or token["content"] in static:
            if token["content"] in vocabulary:
                continue
            token = {**token, "content": f"\ue000{token['id']}\ue001", "normalized": False}
        kept.append(token)
    return json.dumps({**data, "added_tokens": kept, "truncation": None, "padding": None})


def _check(tokenizer: Any, encoder: PromptEncoder) -> None:
    """Raises ValueError where a pair's tokens are not the prompt's."""
    plain = encoder.with_long_documents("truncate")
    tokenizer.no_padding()
    for query, document in _PROBES:
        group = plain.encode(query, [document]).group
        wanted = [*group.prefix_ids, *group.own_ids[0]]
        if len(wanted) < encoder.max_length and tokenizer.encode(query, document).ids != wanted:
            raise ValueError(
                "export: this tokenizer does not give the prompt's tokens when it is laid out for fastembed"
            )
