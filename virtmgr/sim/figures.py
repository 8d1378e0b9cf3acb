"""What a run of the simulated fleet counts and measures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of them do not exceed; 0 where there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Figures:
    """Of one interval: ``sync_seconds`` of each sync that was answered, errors by their code."""

    sync_seconds: list[float] = field(default_factory=list)
    sent: int = 0  # bytes of syncs
    received: int = 0
    wakes: int = 0  # long polls that were answered with news
    polls: int = 0  # all that were answered
    beats: int = 0  # polls that renewed a lease
    errors: Counter[str] = field(default_factory=Counter)

    def take(self) -> Figures:
        """What was counted up to now; from here on it is counted anew."""
        taken = Figures(**vars(self))
        self.__init__()  # type: ignore[misc]
        return taken

    def report(self, seconds: float) -> dict[str, Any]:
        """For programs.

        :param seconds: that the interval took.
        """
        milliseconds = [1000 * each for each in self.sync_seconds]
        return {
            "seconds": round(seconds, 2),
            "syncs": len(milliseconds),
            "syncs_a_second": round(len(milliseconds) / seconds, 1) if seconds else 0.0,
            "sync_p50_ms": round(percentile(milliseconds, 0.50), 1),
            "sync_p95_ms": round(percentile(milliseconds, 0.95), 1),
            "sync_most_ms": round(max(milliseconds, default=0.0), 1),
            "sent": self.sent,
            "received": self.received,
            "polls": self.polls,
            "beats": self.beats,
            "wakes": self.wakes,
            "errors": dict(self.errors),
        }
