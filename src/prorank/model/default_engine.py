"""Which engine runs a checkpoint where nobody says: our own for the built-in rerankers, PyTorch for all else.

PyTorch is an extra. Without it, our own engine runs every checkpoint that it can.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from prorank.backends.native.engine import check_engine
from prorank.cache import cache_dir
from prorank.model.built_in import say
from prorank.model.checkpoint import built_in_rerankers

__all__ = ["default_engine", "has_torch", "why_not"]

_INSTALL = "pip install 'prorank[torch]'"


def default_engine(
    name: str, *, device: str | None, dtype: str | None, share_prefix: bool = True, changed: bool = False
) -> str:
    """``native`` or ``torch``, for a checkpoint that is no export, with ``backend`` at ``auto``.

    Where our engine is meant and cannot run, a notice says why, and PyTorch runs.

    Args:
        device, dtype, share_prefix: as in :meth:`prorank.Reranker.from_pretrained`; a precision, a device other than
            the CPU and prompts computed whole are PyTorch's.
        changed: an adapter or a template was given that is not the model's own.

    Raises:
        ImportError: our engine cannot run here, and PyTorch is not installed.
    """
    anywhere = device in (None, "auto")
    if dtype not in (None, "auto") or not (anywhere or device == "cpu") or not share_prefix:
        return "torch"
    as_it_comes = name in built_in_rerankers() and not changed
    if has_torch() and (not as_it_comes or (anywhere and _has_cuda())):
        return "torch"
    reason = why_not()
    if reason is None:
        return "native"
    if not has_torch():
        raise ImportError(f"{reason}; or let PyTorch run it: {_INSTALL}")
    say(f"{reason}; PyTorch runs {name} instead")
    return "torch"


def why_not() -> str | None:
    """Why our engine cannot run here; None: it can."""
    try:
        check_engine()
    except ImportError as error:
        return str(error)
    except OSError as error:
        where = f"the cache {cache_dir('native')}: {error.strerror or error}; PRORANK_CACHE names another folder"
        return f"our engine cannot be compiled into {where}"
    return None


def has_torch() -> bool:
    """Whether the extra ``torch`` is installed; nothing is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def _has_cuda() -> bool:
    """Whether PyTorch would find an NVIDIA GPU; asking PyTorch itself would take seconds."""
    spec = importlib.util.find_spec("torch")
    places = spec.submodule_search_locations if spec is not None else None
    built_for_it = any(list(Path(place, "lib").glob("*torch_cuda*")) for place in places or [])
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return built_for_it and os.path.exists("/dev/nvidiactl") and not hidden
