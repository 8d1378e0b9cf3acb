"""Calls at a later time, from one thread."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Timers:
    """Calls ``call(key)`` when a key's time has come: once, at the earliest time that was set."""

    def __init__(self, call: Callable[[str], None]) -> None:
        self._call = call
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, str]] = []
        self._due: dict[str, float] = {}  # entries of the heap that differ from it are void
        self._numbers = itertools.count()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def after(self, seconds: float, key: str) -> None:
        """Call for ``key`` in ``seconds``, or earlier where that was asked for before."""
        with self._changed:
            at = time.monotonic() + max(seconds, 0.0)
            if self._due.get(key, at + 1.0) <= at:
                return
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._numbers), key))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                at, _, key = heapq.heappop(self._heap)
                if self._due.get(key) != at:
                    continue
                del self._due[key]
            self._call(key)
