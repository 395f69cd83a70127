"""A decoder in two parts, so that some documents may stop half way: layers up to an exit, and the rest."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from prorank.backends.last_layer import reading
from prorank.backends.torch import PrefixStates, TorchBackend, cache_of, label_rows, padded
from prorank.types import EncodedGroup

__all__ = ["HalfWay", "SplitDecoder", "TorchEarlyExit"]


class HalfWay(NamedTuple):
    """A batch after the first part."""

    hidden: torch.Tensor
    """``(n, width, hidden)``: every token's state after the exit's layer."""
    lengths: torch.Tensor
    """``(n,)`` int64: own tokens of each row."""
    past: PrefixStates | None

    def last(self) -> torch.Tensor:
        """The state at each row's last token, divided by its root mean square, ``(n, hidden)`` float32."""
        rows = torch.arange(len(self.lengths), device=self.hidden.device)
        states = self.hidden[rows, self.lengths - 1].float()
        return states / states.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)


class SplitDecoder:
    """The layers of a torch backend's model, run up to an exit and on from there; its own layers, unchanged.

    Args:
        exit_layer: how many layers the first part has.

    Raises:
        ValueError: the exit lies outside, or the model's layers are not all of one kind (sliding windows).
    """

    def __init__(self, backend: TorchBackend, exit_layer: int) -> None:
        model = backend.model
        config = model.config.get_text_config()
        layers = config.num_hidden_layers
        if not 0 < exit_layer < layers:
            raise ValueError(f"cascade: the exit must lie between layers 1 and {layers - 1}, got {exit_layer}")
        if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
            raise ValueError(f"cascade: {config.model_type} has layers of several kinds, which cannot be split here")
        if not backend.shares_prefixes:
            raise ValueError("cascade: this model's cache cannot be shared, and so it cannot be split")
        self.backend, self.exit_layer = backend, exit_layer
        decoder = model.base_model
        self._first = _part(decoder, decoder.layers[:exit_layer], last=False)
        self._rest = _part(decoder, decoder.layers[exit_layer:], last=True)
        self._rows, self._bias = label_rows(model, backend.label_ids)

    @torch.inference_mode()
    def begin(self, group: EncodedGroup) -> HalfWay:
        """Run a batch's own tokens through the first part."""
        past = self.backend.prefix(group) if group.prefix_ids else None
        tokens, lengths = padded(group.own_ids)
        hidden = self._run(self._first, past, len(lengths), input_ids=tokens.to(self.backend.device))
        return HalfWay(hidden, lengths.to(self.backend.device), past)

    @torch.inference_mode()
    def finish(self, half: HalfWay, rows: Sequence[int]) -> torch.Tensor:
        """Label logits ``(len(rows), 2)`` float32 of some rows of a batch, as the whole model gives them."""
        chosen = torch.as_tensor(list(rows), device=half.hidden.device)
        lengths = half.lengths[chosen]
        hidden = half.hidden[chosen, : int(lengths.max())]
        with reading(lengths - 1):
            states = self._run(self._rest, half.past, len(rows), inputs_embeds=hidden)
        last = states[torch.arange(len(rows), device=states.device), lengths - 1]
        return last.float() @ self._rows.T + self._bias

    def _run(self, part: Any, past: PrefixStates | None, rows: int, **inputs: torch.Tensor) -> torch.Tensor:
        width = next(iter(inputs.values())).shape[1]
        start = past[0][0].shape[-2] if past else 0
        positions = torch.arange(start, start + width, device=self.backend.device)[None].expand(rows, -1)
        cache = cache_of(past, rows) if past else None
        output = part(position_ids=positions, past_key_values=cache, use_cache=past is not None, **inputs)
        states: torch.Tensor = output.last_hidden_state
        return states


class TorchEarlyExit:
    """:class:`prorank.scoring.EarlyExit` on a torch backend.

    Args:
        weights: ``(hidden,)`` float32, of the read-out.

    Raises:
        ValueError: as :class:`SplitDecoder`, or the weights are of another model.
    """

    def __init__(self, backend: TorchBackend, exit_layer: int, weights: npt.NDArray[np.float32]) -> None:
        self._split = SplitDecoder(backend, exit_layer)
        size = backend.model.config.get_text_config().hidden_size
        if weights.shape != (size,):
            raise ValueError(f"cascade: the read-out has shape {weights.shape}, the model's states have {size} numbers")
        self._weights = torch.as_tensor(weights, dtype=torch.float32, device=backend.device)

    def begin(self, group: EncodedGroup) -> tuple[HalfWay, npt.NDArray[np.float32]]:
        """The batch half way, and an estimate a row."""
        half = self._split.begin(group)
        return half, (half.last() @ self._weights).cpu().numpy()

    def finish(self, state: HalfWay, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Label logits of some rows, ``(len(rows), 2)``."""
        return self._split.finish(state, rows).cpu().numpy()


def _part(decoder: Any, layers: Any, *, last: bool) -> Any:
    """A decoder that shares everything with the given one but runs these layers only."""
    part = copy.copy(decoder)
    part.__dict__["_modules"] = dict(decoder._modules)
    part.layers = torch.nn.ModuleList(layers)
    if not last:
        part.norm = torch.nn.Identity()
    return part
