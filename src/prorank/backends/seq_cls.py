"""A sequence-classification checkpoint, as ``prorank export --to seq-cls`` writes it, run by transformers on the CPU.

It is there to check what was written, and stands in for engines that serve such folders. Prompts are computed whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank._optional import require
from prorank.scoring import Capabilities
from prorank.types import EncodedGroup

__all__ = ["SeqClsBackend"]


class SeqClsBackend:
    """Scores of ``AutoModelForSequenceClassification``, in float32.

    Args:
        folder: a checkpoint with one label.
        threads: CPU threads; None: PyTorch's own choice.

    Raises:
        ImportError: PyTorch or transformers is missing.
        ValueError: the folder has another number of labels, or no padding token.
    """

    prefix_hits = 0
    name = "seq-cls-cpu-float32"

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        self._torch = require("torch", extra="torch")
        transformers = require("transformers", extra="torch")
        if threads is not None:
            self._torch.set_num_threads(threads)
        model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=self._torch.float32, local_files_only=True
        )
        if model.config.num_labels != 1 or model.config.pad_token_id is None:
            raise ValueError(f"{folder}: expected one label and a pad_token_id in config.json")
        self._model, self._pad = model.eval(), int(model.config.pad_token_id)
        self.capabilities = Capabilities()

    def label_logits(self, group: EncodedGroup) -> npt.NDArray[np.float32]:
        """See :class:`prorank.scoring.Backend`; column 0 is 0, column 1 the margin."""
        torch = self._torch
        rows = [[*group.prefix_ids, *own] for own in group.own_ids]
        logits = np.zeros((len(rows), 2), dtype=np.float32)
        if not rows:
            return logits
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self._pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            logits[:, 1] = self._model(input_ids=ids, attention_mask=mask).logits[:, 0].float().numpy()
        return logits
