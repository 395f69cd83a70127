"""A cross-encoder of MiniLM's published shape with random weights, in ONNX and int8: what people run without PyTorch.

    python -m benchmarks.runs.random_encoder --layers 6 --documents 2 --tokens 128      # does it run?

FlashRank's and fastembed's models lie on a hub. Their speed follows from their shape, so it can be measured without
them; their quality cannot, and nothing here says anything of it. Both quantise as here (ONNX Runtime's
`quantize_dynamic`, int8 weights). Tokens are drawn, not made of texts: the encoder is spared its tokenizer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

__all__ = ["Encoder", "write_encoder"]

VOCABULARY, HIDDEN, HEADS, INNER, POSITIONS = 30522, 384, 12, 1536, 512
"""Of MiniLM-L6-H384 and -L12-H384, the cross-encoders for MS MARCO."""
BATCH = 64
"""Pairs a pass, fastembed's default."""


def write_encoder(folder: Path, layers: int) -> Path:
    """Write `model.onnx` with random weights, matrices in int8.

    Raises:
        ImportError: transformers, onnx or onnxruntime is not installed.
    """
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=POSITIONS, num_labels=1, attn_implementation="eager",
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()

    class Scores(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
            return model(input_ids=ids, attention_mask=mask, token_type_ids=kinds).logits

    example = tuple(torch.ones(2, 8, dtype=torch.long) for _ in range(3))
    whole = folder / "whole.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        names = ["ids", "mask", "kinds"]
        axes = {name: {0: "n", 1: "width"} for name in names}
        torch.onnx.export(
            Scores(), example, str(whole), input_names=names, dynamic_axes=axes, opset_version=18, dynamo=False
        )
    quantize_dynamic(str(whole), str(folder / "model.onnx"), weight_type=QuantType.QInt8)
    whole.unlink()
    return folder / "model.onnx"


class Encoder:
    """Scores pairs of drawn tokens."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._rng = np.random.default_rng(0)

    def score(self, documents: int, tokens: int) -> np.ndarray:
        """Logits `(documents,)` of so many pairs of so many tokens, query, document and marks together."""
        found = []
        for start in range(0, documents, BATCH):
            shape = (min(BATCH, documents - start), tokens)
            inputs = {
                "ids": self._rng.integers(1000, VOCABULARY, shape), "mask": np.ones(shape, np.int64),
                "kinds": np.zeros(shape, np.int64),
            }  # fmt: skip
            found.append(self._session.run(None, inputs)[0][:, 0])
        return np.concatenate(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 12])
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    for layers in args.layers:
        with tempfile.TemporaryDirectory(prefix="prorank-encoder-") as scratch:
            encoder = Encoder(write_encoder(Path(scratch), layers), args.threads)
            encoder.score(2, args.tokens)
            start = time.perf_counter()
            encoder.score(args.documents, args.tokens)
            speed = args.documents / (time.perf_counter() - start)
        print(f"MiniLM-L{layers}, random weights, int8: {speed:.1f} documents/s of {args.tokens} tokens", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
