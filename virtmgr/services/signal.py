"""In-process notification: whoever waits for a change need not poll at full speed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from threading import Condition
from typing import Final

_REMEMBERED: Final = 10_000  # things that are done: more than anybody waits for at a time


class Signal:
    """A counter that many may watch. Works in threads, and in greenlets once gevent has patched.

    It only carries news within one process, so waiting for it always has a time limit, after
    which the watcher looks into the database.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._count = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the process ends: nobody is to wait any more."""
        return self._closed

    @property
    def count(self) -> int:
        """How often ``notify`` was called. Read it before looking, then wait from it."""
        return self._count

    def notify(self) -> None:
        """Wake everybody who waits."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody who waits, or will wait, go on at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float) -> bool:
        """Wait until the count is past ``seen``, at most ``timeout`` seconds; whether it is."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._count > seen, timeout)
            return self._count > seen


class Done:
    """Which operations this process has seen finish: who waits for others is not kept busy.

    Like ``Signal``, it knows of one process only.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._ids: dict[str, None] = {}  # oldest first
        self._closed = False

    def note(self, ids: Iterable[str]) -> None:
        """Wake those who wait for these; call it after the commit."""
        with self._changed:
            self._ids.update(dict.fromkeys(ids))
            while len(self._ids) > _REMEMBERED:
                del self._ids[next(iter(self._ids))]
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody who waits, or will wait, go on at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, ids: Collection[str], timeout: float) -> None:
        """Wait until all of these were noted, at most ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._ids.keys() >= set(ids), timeout)
