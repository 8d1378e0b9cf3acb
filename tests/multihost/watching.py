"""Looking at something all the time, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Watch:
    """The most that a count was found to be inside the block."""

    def __init__(self, count: Callable[[], int], every: float) -> None:
        """:param every: seconds between looks."""
        self.most = 0
        self._count, self._every = count, every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(self._every):
            self.most = max(self.most, self._count())
