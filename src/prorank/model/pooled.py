"""A model in several processes: the parts of a reranker, whose backend asks workers. This process loads no weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prorank.backends.native.room import packed_in
from prorank.backends.pooled import PooledBackend, answering
from prorank.model.loading import Parts, check_backend, load_parts
from prorank.model.options import LoadOptions
from prorank.model.processes import each_process, thread_variables
from prorank.workers import Workers

__all__ = ["load_pooled"]


def load_pooled(name: str, options: LoadOptions) -> Parts:
    """:func:`prorank.model.loading.load_parts` for options with ``processes`` or ``devices``.

    Raises:
        ValueError: they do not fit this machine or the backend, or the model cannot be loaded.
    """
    each = each_process(options)
    if check_backend(options.backend)[0] == "remote":
        field = "processes" if options.devices is None else "devices"
        raise ValueError(f"{field}: backend remote computes on its own server; leave it out")
    try:
        workers = Workers(_open, [(name, one) for one in each], environment=thread_variables(each[0]), room=True)
    except ValueError as error:  # what is wrong with one of the devices was given as devices
        if options.devices is None or not str(error).startswith("device:"):
            raise
        raise ValueError(f"devices:{str(error).removeprefix('device:')}") from None
    parts, backend, capabilities = workers.hello
    return Parts(PooledBackend(workers, backend, capabilities), *parts)


def _open(name: str, options: LoadOptions, room: int) -> tuple[Any, Any]:
    """A worker: all parts but the backend go to the process that asks."""
    with packed_in(room):
        backend, *others = load_parts(name, replace(options, pair_cache=None))
    return (others, backend.name, backend.capabilities), answering(backend)
