"""Read-outs by which some documents may stop half way: what they are, where they are kept.

A read-out is a vector that estimates a query's margins from the states after an early layer. The model's own layers
stay as they are. How far below the k-th best estimate a document may lie and still go on (the tolerance) is fitted on
queries that the read-out has not seen (``prorank cascade``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["FILE", "LEVELS", "Cascade"]

FILE = "cascade.safetensors"
LEVELS = {"fast": 0.1, "faster": 0.25}
"""Level -> the share of a query's true top documents that may be lost, at most, on queries that were not fitted on.
Most that are lost stood at the end of the top, so that nDCG changes by far less (docs/engines.md)."""


@dataclass(frozen=True)
class Cascade:
    """The exits of one model."""

    layers: tuple[int, ...]
    """Exits: after how many layers, ascending."""
    weights: npt.NDArray[np.float32]
    """``(exits, 2 * hidden)``: estimate = weights · features, where the features are the state of a document's last
    token and the mean over its own tokens, each state divided by its root mean square. Differences within a query
    count."""
    top_k: int
    """The tolerances hold for this many results and fewer."""
    tolerances: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Level -> a tolerance for each exit, in units of the margin."""

    def __post_init__(self) -> None:
        lengths = {*self.weights.shape[:1], *map(len, self.tolerances.values())}
        if self.weights.ndim != 2 or lengths != {len(self.layers)}:
            raise ValueError(f"cascade: expected weights and tolerances for each of {len(self.layers)} exits")
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"cascade: expected ascending layers, got {list(self.layers)}")

    @property
    def sha256(self) -> str:
        """Of the exits, the read-outs and the tolerances: what its estimates depend on besides the model."""
        digest = hashlib.sha256(self._facts().encode())
        digest.update(np.ascontiguousarray(self.weights).tobytes())
        return digest.hexdigest()

    def _facts(self) -> str:
        return json.dumps({"layers": self.layers, "top_k": self.top_k, "tolerances": dict(self.tolerances)})

    def tolerance(self, level: str) -> tuple[float, ...]:
        """The tolerances of a level.

        Raises:
            ValueError: no such level.
        """
        if level not in self.tolerances:
            raise ValueError(f"cascade: expected exact, {', '.join(self.tolerances)}, got {level!r}")
        return self.tolerances[level]

    def save(self, folder: Path) -> Path:
        """Write ``cascade.safetensors``."""
        from safetensors.numpy import save_file

        path = folder / FILE
        save_file({"weights": np.ascontiguousarray(self.weights)}, path, metadata={"cascade": self._facts()})
        return path

    @classmethod
    def load(cls, folder: Path) -> Cascade | None:
        """The folder's read-outs, or None where it has none.

        Raises:
            ValueError: the file is damaged, or of an older form.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()["cascade"])
                weights = file.get_tensor("weights")
            tolerances = {level: tuple(map(float, values)) for level, values in facts["tolerances"].items()}
            return cls(tuple(map(int, facts["layers"])), weights, int(facts["top_k"]), tolerances)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not read-outs of prorank (fit them with: prorank cascade): {error}") from error
