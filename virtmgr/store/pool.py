"""The pool of SQLite's one writing connection: whoever waits longest has it next.

SQLAlchemy's own pool wakes a waiter, and lets anybody who asks meanwhile overtake it; a thread
that opens unit after unit then keeps the others out for as long as it likes.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool


class Turns:
    """A lock that is passed on in the order in which it was asked for (threads or greenlets)."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self, timeout: float) -> bool:
        """Wait for one's turn; False when it did not come within ``timeout`` seconds."""
        with self._mutex:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            if mine.acquire(timeout=timeout):
                return True
        except BaseException:
            if not self._leave(mine):
                self.pass_on()  # nobody is left to use the turn
            raise
        return not self._leave(mine)

    def _leave(self, mine: threading.Lock) -> bool:
        """Stop waiting; False where the turn came in that very moment."""
        with self._mutex:
            if mine not in self._waiting:
                return False
            self._waiting.remove(mine)
            return True

    def pass_on(self) -> None:
        """End one's turn."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class WriterPool(QueuePool):
    """One connection, had in turns."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns = Turns()

    def _do_get(self) -> ConnectionPoolEntry:
        patience = self.timeout()
        if not self._turns.take(patience):
            raise PoolTimeout(f"the writing connection was not free within {patience:g} s")
        try:
            return super()._do_get()
        except BaseException:
            self._turns.pass_on()
            raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._do_return_conn(record)
        finally:
            self._turns.pass_on()
