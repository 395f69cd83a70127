"""Where prorank keeps what it can make again: one folder, movable by PRORANK_CACHE."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir(*parts: str) -> Path:
    """``$PRORANK_CACHE``, else ``$XDG_CACHE_HOME/prorank``, else ``~/.cache/prorank``; ``parts`` are joined on.

    The folder is not created.
    """
    home = os.environ.get("PRORANK_CACHE")
    if home:
        return Path(home).expanduser().joinpath(*parts)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().joinpath("prorank", *parts)
