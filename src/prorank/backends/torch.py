"""PyTorch backend: CPU (bf16 where the processor has it), CUDA, MPS; any causal LM of transformers.

How a score is computed: the instruction's keys and values once per process, the query's once per query, then each
document runs only its own tokens on top of them (right-padded: causal attention never looks at what comes after).
The last layer's products after its attention run for the last tokens only, and of the output matrix only the two label
rows are multiplied, in float32. Models whose cache cannot be shared are detected by a self-check at load and run as
plain batches.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from prorank.backends.attention import can_block_attention, use_blocked_attention
from prorank.backends.last_layer import can_skip_unread, reading, skip_unread
from prorank.scoring import DEFAULT_BATCH_TOKENS, DEFAULT_BATCH_TOKENS_GPU, Capabilities
from prorank.types import EncodedGroup

__all__ = [
    "PrefixStates",
    "TorchBackend",
    "cache_of",
    "decoder_of",
    "label_rows",
    "last_hidden_states",
    "padded",
    "prefix_states",
]

logger = logging.getLogger(__name__)

PrefixStates = list[tuple[torch.Tensor, torch.Tensor]]
"""Per layer the keys and values of a prefix, each ``(1, heads, length, head_dim)``."""

_CACHED_PREFIXES = 16


def label_rows(model: Any, label_ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The two rows of the output matrix and their biases, float32: ``(2, hidden)`` and ``(2,)``; gradients flow.

    A factor that the architecture puts between the output matrix and the logits (Granite, Cohere) is in them.
    """
    head, scale = model.get_output_embeddings(), _logit_scale(model)
    ids = torch.as_tensor(list(label_ids), device=head.weight.device)
    bias = getattr(head, "bias", None)
    rows = head.weight[ids].float() * scale
    return rows, bias[ids].float() * scale if bias is not None else torch.zeros(len(ids), device=rows.device)


def _logit_scale(model: Any) -> float:
    config = model.config.get_text_config()
    divisor = getattr(config, "logits_scaling", None)  # Granite
    factor = getattr(config, "logit_scale", None)  # Cohere
    return float(1.0 if factor is None else factor) / float(divisor or 1.0)


def prefix_states(model: Any, ids: Sequence[int], past: PrefixStates | None = None) -> PrefixStates:
    """Keys and values of ``ids`` on top of ``past``, per layer, for one row; gradients flow where they are on."""
    cache = cache_of(past, 1)
    start = past[0][0].shape[-2] if past else 0
    tokens = torch.as_tensor([list(ids)], device=model.device)
    positions = torch.arange(start, start + len(ids), device=model.device)[None]
    with reading(None):
        decoder_of(model)(input_ids=tokens, position_ids=positions, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def last_hidden_states(model: Any, own_ids: Sequence[Sequence[int]], past: PrefixStates | None = None) -> torch.Tensor:
    """Hidden state after each row's last token, ``(n, hidden)``; the rows share ``past``; gradients flow where on.

    Rows are padded on the right: under causal attention no real token sees the padding, so no mask is needed and a
    row's result does not depend on its neighbours.
    """
    tokens, lengths = padded(own_ids)
    start, width = (past[0][0].shape[-2] if past else 0), tokens.shape[1]
    positions = torch.arange(start, start + width, device=model.device)[None].expand(len(own_ids), -1)
    with reading(lengths.to(model.device) - 1) as read:
        output = decoder_of(model)(
            input_ids=tokens.to(model.device),
            position_ids=positions,
            past_key_values=cache_of(past, len(own_ids)) if past is not None else None,
            use_cache=past is not None,
        )
    states: torch.Tensor = output.last_hidden_state
    return states[read]


def padded(own_ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as ``(n, width)`` int64, zeros on the right, and their lengths ``(n,)``."""
    lengths = torch.tensor([len(ids) for ids in own_ids])
    tokens = torch.zeros((len(own_ids), int(lengths.max())), dtype=torch.long)
    for row, ids in enumerate(own_ids):
        tokens[row, : len(ids)] = torch.as_tensor(list(ids))
    return tokens, lengths


def decoder_of(model: Any) -> Any:
    """The transformer without its output matrix, also inside a PEFT wrapper."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model


def cache_of(past: PrefixStates | None, rows: int) -> Any:
    """A transformers cache that holds the prefix for so many rows; empty without one."""
    from transformers import DynamicCache

    if past is None:
        return DynamicCache()
    return DynamicCache([(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in past])


class TorchBackend:
    """Scores with a transformers causal LM.

    Args:
        model: the model, already on its device and in its precision; put into evaluation mode.
        label_ids: (irrelevant, relevant) token ids.
        share_prefix: False computes every prompt whole (for comparison and debugging).
    """

    def __init__(self, model: Any, label_ids: tuple[int, int], *, share_prefix: bool = True) -> None:
        self.model = model.eval()
        self.label_ids = label_ids
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.name = f"torch-{self.device.type}-{str(self.dtype).removeprefix('torch.')}"
        self.prefix_hits = 0
        self._prefixes: OrderedDict[tuple[int, ...], PrefixStates] = OrderedDict()
        config = model.config.get_text_config()
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self._two_rows = True
        self._share_prefix = share_prefix
        self._self_check()
        self.capabilities = Capabilities(
            batch_tokens=DEFAULT_BATCH_TOKENS if self.device.type == "cpu" else DEFAULT_BATCH_TOKENS_GPU,
            shares_prefixes=self._share_prefix,
            layers=getattr(config, "num_hidden_layers", 0),
            answers=True,
            holds_model=True,
            weights_bytes=sum(one.nelement() * one.element_size() for one in model.parameters()),
        )

    @torch.inference_mode()
    def label_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """See :class:`prorank.scoring.Backend`."""
        if not self._two_rows:
            return self.last_logits(group)[:, list(self.label_ids)]
        return self.logits_of(self._last_hidden(group)).cpu().numpy()

    def logits_of(self, states: torch.Tensor) -> torch.Tensor:
        """Label logits ``(n, 2)`` float32 of last states ``(n, hidden)``, after the final norm."""
        rows, bias = label_rows(self.model, self.label_ids)
        return self._capped(states.float() @ rows.T + bias)

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.tanh(logits / self._softcap) * self._softcap if self._softcap else logits

    @torch.inference_mode()
    def last_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """Logits of the whole vocabulary at the last position, ``(n, vocabulary)`` float32, by the same path."""
        if not self._two_rows:
            return np.stack([self._reference(group, row) for row in range(len(group.own_ids))])
        head = self.model.get_output_embeddings()
        logits = torch.nn.functional.linear(
            self._last_hidden(group).float(), head.weight.float(), None if head.bias is None else head.bias.float()
        )
        return self._capped(logits * _logit_scale(self.model)).cpu().numpy()

    @torch.inference_mode()
    def last_hidden(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """Hidden states at the last position, after the final norm, ``(n, hidden)`` float32."""
        return self._last_hidden(group).float().cpu().numpy()

    def _last_hidden(self, group: EncodedGroup) -> torch.Tensor:
        if not group.own_ids:
            return torch.zeros((0, self.model.config.get_text_config().hidden_size), device=self.device)
        if not self._share_prefix or not group.prefix_ids:
            return last_hidden_states(self.model, [[*group.prefix_ids, *own] for own in group.own_ids])
        return last_hidden_states(self.model, group.own_ids, self.prefix(group))

    def prefix(self, group: EncodedGroup) -> PrefixStates:
        """Keys and values of the group's prefix, from the cache, or built on the instruction's."""
        whole = tuple(group.prefix_ids)
        head = whole[: group.instruction_length]
        found = self._prefixes.get(whole)
        if found is not None:
            self.prefix_hits += 1
        elif head and head != whole:
            states = self._remembered(head) or self._remember(head, prefix_states(self.model, head))
            found = self._remember(whole, prefix_states(self.model, whole[len(head) :], states))
        else:
            found = self._remember(whole, prefix_states(self.model, whole))
        self._prefixes.move_to_end(whole)
        return found

    def _remembered(self, ids: tuple[int, ...]) -> PrefixStates | None:
        if ids in self._prefixes:
            self._prefixes.move_to_end(ids)
            return self._prefixes[ids]
        return None

    def _remember(self, ids: tuple[int, ...], states: PrefixStates) -> PrefixStates:
        self._prefixes[ids] = states
        while len(self._prefixes) > _CACHED_PREFIXES:
            self._prefixes.popitem(last=False)
        return states

    def _reference(self, group: EncodedGroup, row: int) -> npt.NDArray[np.float32]:
        """The model's own forward pass over one whole prompt: what every shortcut must agree with."""
        ids = torch.as_tensor([[*group.prefix_ids, *group.own_ids[row]]], device=self.device)
        logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits[0, -1]
        return logits.float().cpu().numpy()

    @torch.inference_mode()
    def _self_check(self) -> None:
        """Compare the shortcuts with the model's own forward pass on a few tokens; drop those that disagree."""
        ids = [self.label_ids[0], self.label_ids[1]]
        group = EncodedGroup((ids * 4)[:7], [ids * 2 + ids[:1], ids], 3)
        wanted = np.stack([self._reference(group, row) for row in range(2)])[:, ids]
        if not np.isfinite(wanted).all():
            return  # broken weights: scoring says so
        if self.device.type == "cpu" and can_block_attention(self.model):
            use_blocked_attention(self.model)
        if can_skip_unread(decoder_of(self.model)):
            skip_unread(decoder_of(self.model))
        exact = self.dtype == torch.float32
        tolerance = (1e-3 if exact else 0.1) * max(1.0, float(np.abs(wanted).max()))
        # One suspect at a time: first the output matrix, on whole prompts, then the cache, by the states it gives.
        share, self._share_prefix = self._share_prefix, False
        whole = self._last_hidden(group)
        if np.abs(self.logits_of(whole).cpu().numpy() - wanted).max() > tolerance:
            self._two_rows = False  # and with them the cache: the model's own forward pass scores every prompt
            logger.warning("this model's output is not a plain matrix: computing the whole vocabulary (slower)")
        elif share:
            self._share_prefix = self._cache_agrees(group, wanted, tolerance)
            if not self._share_prefix:
                logger.warning("this model's cache cannot be shared between documents: scoring plain batches (slower)")
        self._prefixes.clear()

    def _cache_agrees(self, group: EncodedGroup, wanted: npt.NDArray[np.float32], tolerance: float) -> bool:
        """Whether documents on top of a shared prefix get the logits of whole prompts."""
        try:
            got = self.logits_of(last_hidden_states(self.model, group.own_ids, self.prefix(group))).cpu().numpy()
        except Exception as error:  # any architecture may fail in its own way
            logger.debug("prefix sharing failed: %s", error)
            return False
        return bool(np.abs(got - wanted).max() <= tolerance)
