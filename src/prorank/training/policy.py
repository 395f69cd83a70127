"""The policy that is trained: a causal LM with LoRA (or all its weights), its reference, and the packed forward pass.

Prompts of a query are packed into one row as a tree: the query's prefix once, then each document with its own suffix,
then short branches (what an answer may start with). An attention mask lets every token see its own ancestors only, so
that nothing is padded between documents and nothing is computed twice. It knows no reward and no text.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from prorank.backends.torch import decoder_of
from prorank.types import EncodedGroup

__all__ = ["Packed", "Policy", "pack"]

Branches = Sequence[Sequence[tuple[int, ...]]]
"""Per prompt the beginnings of completions whose next-token logits are wanted; parents before children."""


class Packed(NamedTuple):
    """Groups as token trees, one a row."""

    ids: torch.Tensor
    """``(B, L)`` int64, padded on the right."""
    positions: torch.Tensor
    """``(B, L)`` int64: the position in the prompt, not in the row."""
    visible: torch.Tensor
    """``(B, L, L)`` bool: which tokens a token may attend to."""
    last: torch.Tensor
    """``(n, 2)`` row and column of every prompt's last token, groups in order."""
    branches: torch.Tensor
    """``(b, 2)`` row and column of every branch's last token."""
    branch_of: dict[tuple[int, tuple[int, ...]], int]
    """(prompt, beginning of a completion) -> index into ``branches``."""


def pack(groups: Sequence[EncodedGroup], branches: Branches | None = None) -> Packed:
    """Lay out groups as trees; ``branches`` in the order of all prompts."""
    rows = []
    last: list[tuple[int, int]] = []
    tips: list[tuple[int, int]] = []
    branch_of: dict[tuple[int, tuple[int, ...]], int] = {}
    prompt = 0
    for row, group in enumerate(groups):
        ids, positions = list(group.prefix_ids), list(range(len(group.prefix_ids)))
        # A token sees: its ancestors. Kept as (start, end) spans a token.
        spans: list[list[tuple[int, int]]] = [[(0, i + 1)] for i in range(len(ids))]
        prefix = len(ids)
        for own in group.own_ids:
            start = len(ids)
            for offset, token in enumerate(own):
                ids.append(token)
                positions.append(prefix + offset)
                spans.append([(0, prefix), (start, start + offset + 1)])
            last.append((row, len(ids) - 1))
            tip: dict[tuple[int, ...], int] = {(): len(ids) - 1}
            for beginning in branches[prompt] if branches is not None else ():
                parent = tip[beginning[:-1]]
                here = len(ids)
                ids.append(beginning[-1])
                positions.append(positions[parent] + 1)
                spans.append([*spans[parent], (here, here + 1)])
                tip[beginning] = here
                branch_of[prompt, beginning] = len(tips)
                tips.append((row, here))
            prompt += 1
        rows.append((ids, positions, spans))
    length = max(len(ids) for ids, _, _ in rows)
    packed_ids = torch.zeros(len(rows), length, dtype=torch.long)
    packed_positions = torch.zeros(len(rows), length, dtype=torch.long)
    visible = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)  # padding sees itself: no row is empty
    for row, (ids, positions, spans) in enumerate(rows):
        packed_ids[row, : len(ids)] = torch.as_tensor(ids)
        packed_positions[row, : len(ids)] = torch.as_tensor(positions)
        for column, seen in enumerate(spans):
            for start, end in seen:
                visible[row, column, start:end] = True
    pairs = [torch.as_tensor(p, dtype=torch.long).view(-1, 2) for p in (last, tips)]
    return Packed(packed_ids, packed_positions, visible, pairs[0], pairs[1], branch_of)


class Policy:
    """A model under training.

    Args:
        model: a transformers causal LM; a peft model for LoRA.
        label_ids: (irrelevant, relevant) token ids.
        end_id: the end-of-turn token.
        reference: a frozen copy for full-parameter training; with peft the adapter is switched off instead.
        autocast: multiply in this precision.
    """

    def __init__(
        self,
        model: Any,
        label_ids: tuple[int, int],
        end_id: int,
        *,
        reference: Any = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.label_ids = label_ids
        self.end_id = end_id
        self.autocast = autocast
        self._reference = reference

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device  # type: ignore[no-any-return]

    def parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Trained parameters by name, in a fixed order."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def logits(self, packed: Packed, cache: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Full-vocabulary float32 logits after every prompt ``(n, V)`` and every branch ``(b, V)``, by one pass."""
        where = torch.cat([packed.last, packed.branches]).to(self.device)
        hidden = self._hidden(packed.ids, packed.positions, packed.visible, cache)
        logits = self._head(hidden[where[:, 0], where[:, 1]])
        return logits[: len(packed.last)], logits[len(packed.last) :]

    def continue_logits(
        self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Logits ``(B, m, V)`` after further tokens ``(B, m)`` on a cache; ``visible`` is ``(B, m, cached + m)``."""
        return self._head(self._hidden(ids, positions, visible, cache))

    @property
    def has_reference(self) -> bool:
        """Whether :meth:`reference` can be had: always with LoRA, else where a frozen copy is kept."""
        return self._reference is not None or hasattr(self.model, "disable_adapter")

    @contextlib.contextmanager
    def reference(self) -> Iterator[Policy]:
        """The reference policy, without gradients: the adapter off, or the frozen copy."""
        with torch.no_grad():
            if self._reference is not None:
                yield Policy(self._reference, self.label_ids, self.end_id, autocast=self.autocast)
            elif hasattr(self.model, "disable_adapter"):
                with self.model.disable_adapter():
                    yield self
            else:
                raise ValueError("beta is not 0, but there is no reference policy: give a frozen copy")

    def keep_reference(self) -> None:
        """Freeze a copy of the weights as they are now, as the reference of full-parameter training."""
        self._reference = copy.deepcopy(self.model).requires_grad_(False).eval()

    def _hidden(self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, cache: Any) -> torch.Tensor:
        with self.precision():
            output = decoder_of(self.model)(
                input_ids=ids.to(self.device),
                position_ids=positions.to(self.device),
                attention_mask=visible.to(self.device)[:, None],
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return output.last_hidden_state  # type: ignore[no-any-return]

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        head = self.model.get_output_embeddings()
        bias = None if head.bias is None else head.bias.float()
        logits = F.linear(hidden.float(), head.weight.float(), bias)  # bf16 logits of 30 are 0.125 apart
        softcap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / softcap) * softcap if softcap else logits

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """What a forward pass has to run in: autocast, or nothing."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


def check_packing(policy: Policy, group: EncodedGroup) -> None:
    """Compare the packed forward pass with the model's own on one prompt.

    Raises:
        ValueError: they differ: the architecture does not honour a tree-shaped attention mask.
    """
    with torch.no_grad():
        ours, _ = policy.logits(pack([group]))
        own = [*group.prefix_ids, *group.own_ids[-1]]
        with policy.precision():
            plain = policy.model(input_ids=torch.as_tensor([own], device=policy.device), use_cache=False).logits[0, -1]
    labels = list(policy.label_ids)
    difference = (ours[-1, labels] - plain[labels].float()).abs().max().item()
    exact = policy.autocast is None and policy.model.dtype == torch.float32
    allowed = (1e-3 if exact else 0.1) * max(1.0, plain.float().abs().max().item())
    if not difference <= allowed:
        raise ValueError(
            f"this architecture does not follow a tree-shaped attention mask (logits differ by {difference:.3g}); "
            "warmup needs a model with plain causal attention"
        )
