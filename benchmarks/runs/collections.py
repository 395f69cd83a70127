"""Where the benchmarks find their collections: the folder that ``PRORANK_DATA`` names (docs/data.md)."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(os.environ.get("PRORANK_DATA") or "data").expanduser()
"""Holds a BEIR folder for each collection: nfcorpus, scifact, dl19, msmarco-sample ..."""
