"""Every setting of stage 2, its default and its meaning."""

from __future__ import annotations

from dataclasses import dataclass

from prorank.training.config import TrainingConfig

__all__ = ["LABEL_LOSSES", "TEACHER_LOSSES", "RefineConfig"]

LABEL_LOSSES = ("softmax", "bce", "balanced_bce", "ranknet", "lambda", "listnet")
"""Names of the losses on judgments; the functions are in ``prorank.training.refine.losses``, which needs torch."""
TEACHER_LOSSES = ("kl", "margin_mse")
"""Names of the losses on a teacher's scores."""


@dataclass(frozen=True)
class RefineConfig(TrainingConfig):
    """Stage 2, fine-grained score learning. The paper's values were not available to us; these are ours (refine.md)."""

    learning_rate: float = 3e-4
    """AdamW's peak learning rate."""
    list_size: int = 8
    """Documents per list: one relevant document and its rivals, or a teacher's best and others."""
    hard_negatives: int = 5
    """How many of a list's rivals come from the candidates at the end of the ramp; the rest are random passages."""
    hard_ramp: float = 0.3
    """Share of the steps over which the number of hard rivals grows from 0 (0: all from the start)."""
    hard_rank_from: int = 1
    """First rank (from 1) of the candidates that rivals are drawn from."""
    hard_rank_to: int = 50
    """Last rank of the candidates that rivals are drawn from."""
    positive_rank_to: int = 0
    """Last rank of the candidates that relevant documents are drawn from (0: they need not be candidates). A reranker
    never sees what the first stage did not find, and a relevant document without the query's words, set against rivals
    that have them all, teaches it to dislike those words."""
    false_negative_margin: float | None = None
    """Suspect unjudged candidates that a teacher scores above the relevant document's score minus this."""
    false_negatives: str = "drop"
    """What becomes of the suspected: drop leaves them out of lists, unlabel only out of losses on judgments."""
    rivals: str = "window"
    """How candidates are drawn: window, all of the rank window alike; quantiles, one out of each equal part of it in
    the teacher's order, so that a list spans the teacher's scores."""
    relevance_threshold: int = 1
    """Judgments of at least this are relevant; a grade teaches as grade - threshold + 1."""

    losses: tuple[str, ...] = ("softmax=1", "bce=0.2")
    """Losses as name=weight: softmax, bce, balanced_bce, ranknet, lambda, listnet on judgments; kl, margin_mse on a
    teacher's scores."""
    temperature: float = 1.0
    """Temperature of softmax."""
    teacher_temperature: float = 0.5
    """Temperature of kl; divides the teacher's scores."""
    teacher_normalise: bool = True
    """Scale a teacher's scores to mean 0 and deviation 1 within a query's candidates."""
    format_cost: float = 0.0
    """Weight of -log(probability of the two label words), which preserves stage 1's answer format."""

    mixture_alpha: float = 0.5
    """Datasets are drawn with probability weight * lists ** alpha: 1 in proportion to size, 0 by weight alone."""
    share_prefix: bool = True
    """Compute a query's prefix once for its list, forward and backward; False only to compare."""
    forward_tokens: int = 8192
    """Tokens in one forward and backward pass; longer lists are split, with cached gradients and the same result."""
    freeze_layers: int = 0
    """Freeze this many of the lowest layers."""
    rslora: bool = False
    """Scale LoRA by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732)."""
    lora_plus_ratio: float = 1.0
    """Learning rate of LoRA's B over A's (LoRA+; Hayou et al. 2024, arXiv 2402.12354)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("hard_rank_from", "forward_tokens")
        self._shares("hard_ramp", "mixture_alpha")
        self._not_negative("hard_negatives", "positive_rank_to", "format_cost", "freeze_layers")
        if self.list_size < 2:
            raise ValueError(f"list_size: expected at least 2 documents to order, got {self.list_size}")
        if self.hard_negatives > self.list_size - 1:
            raise ValueError(f"hard_negatives: expected at most list_size - 1, got {self.hard_negatives}")
        if self.hard_rank_to < self.hard_rank_from:
            raise ValueError(f"hard_rank_to: expected at least hard_rank_from, got {self.hard_rank_to}")
        for name, known in (("false_negatives", ("drop", "unlabel")), ("rivals", ("window", "quantiles"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected {' or '.join(known)}, got {getattr(self, name)!r}")
        for name in ("temperature", "teacher_temperature", "lora_plus_ratio"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        self.loss_weights()

    @property
    def depth(self) -> int:
        """How many candidates a query needs."""
        return max(self.hard_rank_to, self.positive_rank_to)

    def loss_weights(self) -> dict[str, float]:
        """Loss name -> weight.

        Raises:
            ValueError: an unknown name, or a weight that is no number.
        """
        weights = {}
        for text in self.losses:
            name, _, weight = text.partition("=")
            if name not in (*LABEL_LOSSES, *TEACHER_LOSSES):
                raise ValueError(f"losses: {name!r} is none of {', '.join((*LABEL_LOSSES, *TEACHER_LOSSES))}")
            try:
                weights[name] = float(weight or 1.0)
            except ValueError:
                raise ValueError(f"losses: expected name=weight, got {text!r}") from None
        if not any(weights.values()):
            raise ValueError("losses: at least one needs a weight above 0")
        return weights
