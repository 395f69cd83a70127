"""Ray Data: an actor class that scores the rows of a dataset.

from prorank.integrations.ray import Scorer

scored = dataset.map_batches(Scorer, batch_size=256, compute=ray.data.ActorPoolStrategy(size=8), num_cpus=1)

``prorank score --engine ray`` scores whole files, resumes, and never tears a query apart.
"""

from __future__ import annotations

from prorank.batch.ray import Scorer

__all__ = ["Scorer"]
