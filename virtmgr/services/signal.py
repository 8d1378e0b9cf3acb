"""In-process notification: whoever waits for a change need not poll at full speed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from threading import Condition, Lock
from typing import Final

_REMEMBERED: Final = 10_000  # things that are done: more than anybody waits for at a time


def _tell_nobody(*_news: object) -> None:
    """There are no other processes, or they look by themselves."""


class Signal:
    """A counter that many may watch. Works in threads, and in greenlets once gevent has patched.

    News may be lost between processes, so waiting for it always has a time limit, after which the
    watcher looks into the database.
    """

    __slots__ = ("_changed", "_closed", "_count", "_lock", "_tell", "_watchers")

    def __init__(self, tell: Callable[[], None] = _tell_nobody, lock: Lock | None = None) -> None:
        """
        :param tell: lets other processes know of what this one notifies.
        :param lock: that many signals may share, if there are thousands; it is held briefly.
        """
        self._tell = tell
        self._lock = lock or Lock()
        self._changed: Condition | None = None  # once somebody waits: it is larger than all else
        self._count = 0
        self._closed = False
        self._watchers: tuple[Callable[[], None], ...] = ()

    @property
    def closed(self) -> bool:
        """Whether the process ends: nobody is to wait any more."""
        return self._closed

    @property
    def count(self) -> int:
        """How often ``notify`` was called. Read it before looking, then wait from it."""
        return self._count

    def notify(self) -> None:
        """Wake everybody who waits, in other processes too."""
        self.heard()
        self._tell()

    def heard(self) -> None:
        """Wake everybody who waits in this process."""
        with self._lock:
            self._count += 1
            self._let_go_on()
        self._tell_watchers()

    def close(self) -> None:
        """Let everybody who waits, or will wait, go on at once."""
        with self._lock:
            self._closed = True
            self._let_go_on()
        self._tell_watchers()

    def wait(self, seen: int, timeout: float) -> bool:
        """Wait until the count is past ``seen``, at most ``timeout`` seconds; whether it is."""
        with self._lock:
            if self._changed is None:
                self._changed = Condition(self._lock)
            self._changed.wait_for(lambda: self._closed or self._count > seen, timeout)
            return self._count > seen

    def watch(self, seen: int, told: Callable[[], None]) -> bool:
        """Have ``told`` called once when there is no more need to wait, instead of waiting.

        :returns: whether there is such need. Otherwise it is not called.
        """
        with self._lock:
            if self._closed or self._count > seen:
                return False
            self._watchers += (told,)
            return True

    def unwatch(self, told: Callable[[], None]) -> None:
        """``told`` is not to be called any more."""
        with self._lock:
            self._watchers = tuple(each for each in self._watchers if each != told)

    def _let_go_on(self) -> None:
        """Those who wait; the lock is held."""
        if self._changed is not None:
            self._changed.notify_all()

    def _tell_watchers(self) -> None:
        with self._lock:
            watchers, self._watchers = self._watchers, ()
        for told in watchers:
            told()


class Done:
    """Which operations have finished, as far as is known here: who waits for others is not kept
    busy.
    """

    def __init__(self, tell: Callable[[Collection[str]], None] = _tell_nobody) -> None:
        """:param tell: lets other processes know of what this one has seen finish."""
        self._tell = tell
        self._changed = Condition()
        self._ids: dict[str, None] = {}  # oldest first
        self._closed = False

    def note(self, ids: Iterable[str]) -> None:
        """Wake those who wait for these, in other processes too; call it after the commit."""
        finished = list(ids)
        self.heard(finished)
        if finished:
            self._tell(finished)

    def heard(self, ids: Iterable[str]) -> None:
        """Wake those of this process who wait for these."""
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
