"""Which queries are kept for evaluation."""

from __future__ import annotations

import hashlib

__all__ = ["is_held_out"]


def is_held_out(query_id: str, share: float) -> bool:
    """Whether a query is kept for evaluation: by the hash of its id, so that it never changes sides."""
    return int(hashlib.sha256(query_id.encode()).hexdigest()[:8], 16) % 10_000 < share * 10_000
