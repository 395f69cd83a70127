"""Read-outs by which some documents may stop half way: what they are, where they are kept.

A read-out is a vector that estimates a query's margins from the states after an early layer. The model's own layers
stay as they are. How far below the k-th best estimate a document may lie and still be finished (the tolerance) is
fitted on queries that the read-out has not seen (``prorank cascade``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["FILE", "LEVELS", "Cascade"]

FILE = "cascade.safetensors"
LEVELS = {"fast": 0.01, "faster": 0.05}
"""Level -> the largest share of true top documents that may be lost, on the queries it was fitted on."""


@dataclass(frozen=True)
class Cascade:
    """One exit."""

    layer: int
    """How many layers run for every document."""
    weights: npt.NDArray[np.float32]
    """``(hidden,)``: estimate = weights · (state / its root mean square); differences within a query count."""
    top_k: int
    """The tolerances hold for this many results and fewer."""
    tolerances: dict[str, float] = field(default_factory=dict)
    """Level -> tolerance in units of the margin."""

    def tolerance(self, level: str) -> float:
        """The tolerance of a level.

        Raises:
            ValueError: no such level.
        """
        if level not in self.tolerances:
            raise ValueError(f"cascade: expected exact, {', '.join(self.tolerances)}, got {level!r}")
        return self.tolerances[level]

    def save(self, folder: Path) -> Path:
        """Write ``cascade.safetensors``."""
        from safetensors.numpy import save_file

        facts = {"layer": self.layer, "top_k": self.top_k, "tolerances": self.tolerances}
        path = folder / FILE
        save_file({"weights": np.ascontiguousarray(self.weights)}, path, metadata={"cascade": json.dumps(facts)})
        return path

    @classmethod
    def load(cls, folder: Path) -> Cascade | None:
        """The folder's read-out, or None where it has none.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()["cascade"])
                weights = file.get_tensor("weights")
            return cls(int(facts["layer"]), weights, int(facts["top_k"]), dict(facts["tolerances"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a read-out of prorank: {error}") from error
