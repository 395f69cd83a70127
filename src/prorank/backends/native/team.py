"""One batch on several cores: a thread for each, all of which run ``native.c``'s `prorank_run` (see team.h)."""

from __future__ import annotations

import ctypes
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from prorank.backends.native.room import LINE
from prorank.backends.native.weights import Batch

__all__ = ["compute_together"]


class _Team(ctypes.Structure):
    """See team.h."""

    _fields_ = tuple((name, ctypes.c_int32) for name in ("members", "abandoned", "arrived", "round", "asleep"))


def compute_together(
    library: ctypes.CDLL, model: ctypes.Structure, batch: Batch, spaces: list[npt.NDArray[np.uint8]]
) -> None:
    """Compute a batch in as many threads as there are working memories; those that are too small are replaced."""
    ours, own = (library.prorank_space(ctypes.byref(model), ctypes.byref(batch), part) for part in (0, 1))
    ours += -ours % LINE
    starts = []
    for number, space in enumerate(spaces):
        needed = own + LINE + (0 if number else ours)
        if len(space) < needed:
            space = spaces[number] = np.empty(needed, dtype=np.uint8)
        starts.append(space.ctypes.data + -space.ctypes.data % LINE)
    memory, owns = starts[0], [starts[0] + ours, *starts[1:]]

    def run(team: _Team, number: int) -> None:
        library.prorank_run(
            ctypes.byref(model), ctypes.byref(batch), ctypes.c_void_p(memory), ctypes.c_void_p(owns[number]),
            ctypes.byref(team), number,
        )  # fmt: skip

    if len(spaces) == 1:
        run(_Team(1), 0)
        return
    team = _Team(len(spaces))
    with ThreadPoolExecutor(len(spaces) - 1, thread_name_prefix="prorank-core") as pool:
        others: list[Future[Any]] = []
        try:
            others += [pool.submit(run, team, number) for number in range(1, len(spaces))]
            run(team, 0)
        except BaseException as error:  # no thread could be started, or Ctrl-C came: those that wait must not for ever
            team.abandoned = 1
            if not isinstance(error, RuntimeError):
                raise
    if team.abandoned:
        run(_Team(1), 0)
