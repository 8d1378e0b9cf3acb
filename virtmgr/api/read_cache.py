"""Answers of reads, each given again while nothing has been committed since it was made.

Who watches asks the same again and again. Asking the database whether anything changed costs a
fraction of what reading and rendering a page costs. An answer belongs to one token, and is checked
anew every few seconds whatever happens, so that what the clock alone changes is seen.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from virtmgr.api.idempotency import Remembered

LIFETIME: Final = timedelta(seconds=5)
_MOST_CHARACTERS: Final = 8_000_000  # in all
_LONGEST: Final = 1_000_000  # characters of one answer
_Key = tuple[str, ...]


@dataclass(frozen=True)
class _Kept:
    stamp: Hashable
    until: datetime
    answer: Remembered

    def is_good(self, stamp: Hashable, now: datetime) -> bool:
        return self.stamp == stamp and self.until > now


class ReadCache:
    """Bounded; what is over, and the answers that were not asked for longest, go first.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._characters = 0

    def find(self, key: _Key, stamp: Hashable, now: datetime) -> Remembered | None:
        """The answer, if it was made at ``stamp`` and its time is not over."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            if not kept.is_good(stamp, now):
                self._drop(key)
                return None
            self._kept.move_to_end(key)
            return kept.answer

    def keep(
        self, key: _Key, stamp: Hashable, now: datetime, until: datetime, answer: Remembered
    ) -> None:
        """Keep an answer that was made from what was committed at ``stamp``, or later."""
        if len(answer.body) > _LONGEST:
            return
        with self._lock:
            self._drop(key)
            self._kept[key] = _Kept(stamp, until, answer)
            self._characters += len(answer.body)
            while not self._fits(stamp, now):
                self._drop(next(iter(self._kept)))

    def _fits(self, stamp: Hashable, now: datetime) -> bool:
        """Whether nothing is kept in vain; the oldest tells of the time."""
        if not self._kept:
            return True
        oldest = self._kept[next(iter(self._kept))]
        return self._characters <= _MOST_CHARACTERS and oldest.is_good(stamp, now)

    def __len__(self) -> int:
        return len(self._kept)

    def _drop(self, key: _Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._characters -= len(kept.answer.body)
