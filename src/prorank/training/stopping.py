"""Ctrl-C that ends a run after its step, with everything saved."""

from __future__ import annotations

import signal
import threading
from typing import Any

__all__ = ["StopSignal"]


class StopSignal:
    """The first Ctrl-C or SIGTERM asks the loop to stop after its step; the second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
