"""The pool of SQLite's one writing connection: whoever waits longest has it next.

SQLAlchemy's own pool wakes a waiter, and lets anybody who asks meanwhile overtake it; a thread
that opens unit after unit then keeps the others out for as long as it likes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from virtmgr.services.turns import Turns


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
