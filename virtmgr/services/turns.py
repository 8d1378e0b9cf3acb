"""Turns: so much is worked on at a time, and whoever waits longest is next.

A server that has more to do than it can would otherwise work for those who have given up waiting,
and get nothing done: thousands of agents that come back at once are answered one after another.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from virtmgr.domain.errors import Unavailable


class Turns:
    """Places that are passed on in the order in which they were asked for. Safe in threads and
    greenlets of one process."""

    def __init__(self, at_once: int = 1) -> None:
        self._mutex = threading.Lock()
        self._free = at_once
        self._urgent: deque[threading.Lock] = deque()
        self._others: deque[threading.Lock] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        with self._mutex:
            return len(self._urgent) + len(self._others)

    @contextmanager
    def turn(self, what: str, patience: float, *, urgent: bool = False) -> Iterator[None]:
        """Wait for a turn, and have it while the block runs.

        :param patience: seconds to wait.
        :raises Unavailable: it did not come in time.
        """
        if not self.take(patience, urgent=urgent):
            raise Unavailable(
                f"{what}: its turn did not come within {patience:g} s, so much is to be done",
                code="busy",
                hint="it is tried again",
            )
        try:
            yield
        finally:
            self.pass_on()

    def take(self, timeout: float, *, urgent: bool = False) -> bool:
        """Wait for one's turn; False when it did not come within ``timeout`` seconds.

        :param urgent: before all that are not.
        """
        queue = self._urgent if urgent else self._others
        with self._mutex:
            if self._free:
                self._free -= 1
                return True
            mine = threading.Lock()
            mine.acquire()
            queue.append(mine)
        try:
            if mine.acquire(timeout=timeout):
                return True
        except BaseException:
            if not self._leave(queue, mine):
                self.pass_on()  # nobody is left to use the turn
            raise
        return not self._leave(queue, mine)

    def pass_on(self) -> None:
        """End one's turn."""
        with self._mutex:
            queue = self._urgent or self._others
            if queue:
                queue.popleft().release()
            else:
                self._free += 1

    def _leave(self, queue: deque[threading.Lock], mine: threading.Lock) -> bool:
        """Stop waiting; False where the turn came in that very moment."""
        with self._mutex:
            if mine not in queue:
                return False
            queue.remove(mine)
            return True
