"""Estimate the memory and time of a training recipe on one GPU from its model's shape and its settings.

    python tools/estimate_training.py recipes/train/*.toml

It measures nothing and counts the parameters.

Memory is the weights in bfloat16 (2 bytes each), LoRA's merged copy of the linear layers (2), LoRA's own weights,
gradients and two moments in float32 (16), the output matrix in float32 (4; the format cost and warmup read the whole
vocabulary), and what the largest forward pass keeps for the backward pass. Per token and layer, the latter is about 20
bytes x hidden (norms and residuals, half of it float32) + 10 x query width + 8 x key-value width + 8 x intermediate
size, without gradient checkpointing.

Time is 4 operations per parameter of the linear layers and token (2 forward, 2 backward; the base's own weights need no
gradient) at a fifth of an RTX 4090's 165 Tflop/s in bfloat16, but at least 1.5 ms per layer and list, the time it takes
to launch the kernels. Mining, evaluation during training and the test are not included.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

TEMPLATE_TOKENS, SUFFIX_TOKENS = 55, 8
"""Tokens of our prompt before query and document, and after the document; tokenizers differ a little."""
FLOPS = 0.2 * 165e12
SECONDS_A_LAYER = 1.5e-3


class Shape(NamedTuple):
    """What a decoder's size depends on, as in its config.json."""

    layers: int
    hidden: int
    query: int
    """Heads x head size."""
    key: int
    """Key-value heads x head size."""
    intermediate: int
    vocabulary: int
    """Rows of the embedding, which is the output matrix too."""

    def linear(self) -> int:
        """Weights of all linear layers."""
        attention = 2 * self.hidden * (self.query + self.key)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def parameters(self) -> int:
        """All weights, without biases and norms (less than 0.1 %)."""
        return self.linear() + self.vocabulary * self.hidden

    def lora(self, rank: int) -> int:
        """Weights of LoRA on every linear layer."""
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))

    def kept(self) -> int:
        """Bytes kept per token for the backward pass."""
        return self.layers * (20 * self.hidden + 10 * self.query + 8 * self.key + 8 * self.intermediate)


SHAPES = {
    "smollm2-135m": Shape(30, 576, 576, 192, 1536, 49152),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(24, 896, 896, 128, 4864, 151936),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(28, 1536, 1536, 256, 8960, 151936),
    "Qwen/Qwen3-0.6B": Shape(28, 1024, 2048, 1024, 3072, 151936),
    "google/gemma-3-270m-it": Shape(18, 640, 1024, 256, 2048, 262144),
}


class Estimate(NamedTuple):
    """What one recipe needs."""

    parameters: int
    lora: int
    tokens: int
    """In training, over all steps."""
    pass_tokens: int
    """In the largest forward pass."""
    gigabytes: float
    """Of GPU memory, 1e9 bytes."""
    hours: float

    def line(self) -> str:
        """The line in a recipe's header."""
        return (
            f"Estimated, not measured: {self.parameters / 1e6:,.0f} M parameters and {self.lora / 1e6:.1f} M of LoRA; "
            f"{self.tokens / 1e6:.0f} M tokens, at most {self.pass_tokens:,} in a pass; {self.gigabytes:.0f} GB of GPU "
            f"memory; {self.hours:.1f} hours of training on one RTX 4090."
        )


def estimate(file: dict[str, Any]) -> Estimate:
    """Estimate a parsed recipe; missing settings take the defaults of the settings classes."""
    from prorank.training.refine.config import RefineConfig
    from prorank.training.warmup.config import WarmupConfig

    shape = SHAPES[file["model"]]
    warmup = WarmupConfig(**file.get("warmup", {}))
    tables = file.get("blocks", [{}])
    own = [{k: v for k, v in table.items() if k not in ("name", "remine")} for table in tables]
    blocks = [{**file.get("refine", {}), **table} for table in own]
    passes = [(warmup.steps * warmup.queries_per_step, _tokens(warmup, warmup.negatives + 1))]
    widths = [warmup.queries_per_forward * passes[0][1]]
    for settings in blocks:
        block = RefineConfig(**{**settings, "losses": tuple(settings.get("losses", RefineConfig.losses))})
        passes.append((block.steps * block.queries_per_step, _tokens(block, block.list_size)))
        widths.append(min(passes[-1][1], block.forward_tokens))
    lora = shape.lora(warmup.lora_rank)
    memory = 2 * shape.parameters() + 2 * shape.linear() + 16 * lora + 4 * shape.vocabulary * shape.hidden
    seconds = sum(n * max(4 * shape.linear() * t / FLOPS, SECONDS_A_LAYER * shape.layers) for n, t in passes)
    return Estimate(
        shape.parameters(), lora, sum(n * t for n, t in passes), max(widths),
        (memory + max(widths) * shape.kept()) / 1e9, seconds / 3600,
    )  # fmt: skip


def _tokens(config: Any, documents: int) -> int:
    """Tokens of a query and its documents at their limits, counting the shared prefix once."""
    return TEMPLATE_TOKENS + config.query_tokens + documents * (config.document_tokens + SUFFIX_TOKENS)


def main() -> int:
    for path in map(Path, sys.argv[1:]):
        print(f"{path.name}: {estimate(tomllib.loads(path.read_text('utf-8'))).line()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
