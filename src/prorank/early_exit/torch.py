"""A decoder in parts, so that some documents may stop between them: layers up to each exit, and the rest."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from prorank.backends.last_layer import reading
from prorank.backends.torch import PrefixStates, TorchBackend, cache_of, padded
from prorank.types import EncodedGroup

__all__ = ["HalfWay", "SplitDecoder", "TorchEarlyExit", "features"]


class HalfWay(NamedTuple):
    """A batch at an exit."""

    hidden: torch.Tensor
    """``(n, width, hidden)``: every token's state after the exit's layer."""
    lengths: torch.Tensor
    """``(n,)`` int64: own tokens of each row."""
    past: PrefixStates | None
    part: int
    """How many parts have run."""


def features(hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What a read-out reads: the last token's state and the mean over a row's tokens, ``(n, 2 * hidden)`` float32.

    Args:
        hidden: ``(n, width, hidden)``; each state is divided by its root mean square.
        lengths: ``(n,)`` tokens of each row, the others being padding.
    """
    states = hidden.float()
    states = states / states.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
    rows = torch.arange(len(lengths), device=hidden.device)
    own = torch.arange(hidden.shape[1], device=hidden.device)[None, :, None] < lengths[:, None, None]
    return torch.cat([states[rows, lengths - 1], (states * own).sum(1) / lengths[:, None]], dim=1)


class SplitDecoder:
    """The layers of a torch backend's model in parts, cut at the exits; its own layers, unchanged.

    Args:
        exits: after how many layers each part but the last ends, ascending.

    Raises:
        ValueError: an exit lies outside, or the model's layers are not all of one kind (sliding windows), or
            its parts do not score as the whole.
    """

    def __init__(self, backend: TorchBackend, exits: Sequence[int]) -> None:
        model = backend.model
        config = model.config.get_text_config()
        layers = config.num_hidden_layers
        for number in exits:
            if not 0 < number < layers:
                raise ValueError(f"cascade: an exit must lie between layers 1 and {layers - 1}, got {number}")
        if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
            raise ValueError(f"cascade: {config.model_type} has layers of several kinds, which cannot be split here")
        if not backend.capabilities.shares_prefixes:
            raise ValueError("cascade: this model's prefixes cannot be shared, and so it cannot be split")
        self.backend = backend
        decoder, cuts = model.base_model, [0, *exits, layers]
        self._parts = [
            _part(decoder, decoder.layers[start:end], last=end == layers) for start, end in itertools.pairwise(cuts)
        ]
        self._self_check()

    @torch.inference_mode()
    def begin(self, group: EncodedGroup) -> HalfWay:
        """Run a batch's own tokens through the first part."""
        past = self.backend.prefix(group) if group.prefix_ids else None
        tokens, lengths = padded(group.own_ids)
        hidden = self._run(0, past, input_ids=tokens.to(self.backend.device))
        return HalfWay(hidden, lengths.to(self.backend.device), past, 1)

    @torch.inference_mode()
    def go_on(self, pieces: Sequence[tuple[HalfWay, Sequence[int]]]) -> HalfWay:
        """Run some rows of batches of one query, joined to one, through the next part, which is not the last."""
        hidden, lengths = _joined(pieces)
        first = pieces[0][0]
        return HalfWay(self._run(first.part, first.past, inputs_embeds=hidden), lengths, first.past, first.part + 1)

    @torch.inference_mode()
    def finish(self, pieces: Sequence[tuple[HalfWay, Sequence[int]]]) -> torch.Tensor:
        """Label logits ``(n, 2)`` float32 of rows that wait before the last part, as the whole model gives them."""
        hidden, lengths = _joined(pieces)
        with reading(lengths - 1) as read:
            states = self._run(-1, pieces[0][0].past, inputs_embeds=hidden)
        return self.backend.logits_of(states[read])

    @torch.inference_mode()
    def _self_check(self) -> None:
        """Compare the parts with the whole model on a few tokens.

        A model that scales its embeddings, say, would scale the states between its parts, too.
        """
        ids = [self.backend.label_ids[0], self.backend.label_ids[1]]
        group = EncodedGroup((ids * 4)[:7], [ids * 2 + ids[:1], ids], 3)
        wanted = self.backend.label_logits(group)
        half = self.begin(group)
        while half.part < len(self._parts) - 1:
            half = self.go_on([(half, range(len(group.own_ids)))])
        got = self.finish([(half, range(len(group.own_ids)))]).cpu().numpy()
        exact = self.backend.dtype == torch.float32
        tolerance = (1e-3 if exact else 0.1) * max(1.0, float(np.abs(wanted).max()))
        if not np.abs(got - wanted).max() <= tolerance and np.isfinite(wanted).all():
            kind = self.backend.model.config.get_text_config().model_type
            raise ValueError(f"cascade: {kind} in parts does not score as the whole model, so it cannot stop half way")

    def _run(self, part: int, past: PrefixStates | None, **inputs: torch.Tensor) -> torch.Tensor:
        rows, width = next(iter(inputs.values())).shape[:2]
        start = past[0][0].shape[-2] if past else 0
        positions = torch.arange(start, start + width, device=self.backend.device)[None].expand(rows, -1)
        cache = cache_of(past, rows) if past else None
        output = self._parts[part](
            position_ids=positions, past_key_values=cache, use_cache=past is not None, **inputs
        )  # fmt: skip
        states: torch.Tensor = output.last_hidden_state
        return states


class TorchEarlyExit:
    """:class:`prorank.early_exit.scoring.EarlyExit` on a torch backend.

    Args:
        weights: ``(exits, 2 * hidden)`` float32, of the read-outs.

    Raises:
        ValueError: as :class:`SplitDecoder`, or the weights are of another model.
    """

    def __init__(self, backend: TorchBackend, exits: Sequence[int], weights: npt.NDArray[np.float32]) -> None:
        self.passes = backend.capabilities.passes
        self._split = SplitDecoder(backend, exits)
        size = 2 * backend.model.config.get_text_config().hidden_size
        if weights.shape[1] != size:
            raise ValueError(f"cascade: the read-outs read {weights.shape[1]} numbers, the model's states have {size}")
        self._weights = torch.as_tensor(weights, dtype=torch.float32, device=backend.device)

    def begin(self, group: EncodedGroup) -> tuple[HalfWay, npt.NDArray[np.float32]]:
        """The batch at the first exit, and an estimate a row."""
        half = self._split.begin(group)
        return half, self._estimates(half)

    def go_on(self, pieces: Sequence[tuple[HalfWay, Sequence[int]]]) -> tuple[HalfWay | None, npt.NDArray[np.float32]]:
        """Some rows at the next exit with an estimate each; after the last exit, their label logits ``(n, 2)``."""
        if pieces[0][0].part == len(self._weights):
            return None, self._split.finish(pieces).cpu().numpy()
        half = self._split.go_on(pieces)
        return half, self._estimates(half)

    def _estimates(self, half: HalfWay) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = (
            (features(half.hidden, half.lengths) @ self._weights[half.part - 1]).cpu().numpy()
        )
        return found


def _joined(pieces: Sequence[tuple[HalfWay, Sequence[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of several batches as one: ``(n, width, hidden)``, zeros on the right, and their lengths ``(n,)``."""
    chosen = [(half, torch.as_tensor(list(rows), device=half.hidden.device)) for half, rows in pieces]
    lengths = torch.cat([half.lengths[rows] for half, rows in chosen])
    width = int(lengths.max())
    hidden = torch.cat(
        [
            torch.nn.functional.pad(half.hidden[rows, :width], (0, 0, 0, max(0, width - half.hidden.shape[1])))
            for half, rows in chosen
        ]
    )
    return hidden, lengths


def _part(decoder: Any, layers: Any, *, last: bool) -> Any:
    """A decoder that shares everything with the given one but runs these layers only."""
    part = copy.copy(decoder)
    part.__dict__["_modules"] = dict(decoder._modules)
    part.layers = torch.nn.ModuleList(layers)
    if not last:
        part.norm = torch.nn.Identity()
    return part
