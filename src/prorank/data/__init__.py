"""Collections, first stages and negatives: everything between files and prompts. Knows no model that reranks."""

from __future__ import annotations

from prorank.data.collection import Collection
from prorank.data.first_stage import first_stage
from prorank.data.load import load_collection
from prorank.data.trec import read_run, write_run

__all__ = ["Collection", "first_stage", "load_collection", "read_run", "write_run"]
