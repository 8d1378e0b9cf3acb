"""Observations on their way up: the latest of each workload, until the control plane has it."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from virtmgr.domain.observing import STATE_DURING
from virtmgr.domain.sync import ObservedVolume, ObservedWorkload

_HOLD_BACK = 0.15  # seconds
_PASSING = frozenset(STATE_DURING.values())


@dataclass(frozen=True)
class Parcel:
    """What one sync carries. ``number`` says how new it is."""

    workloads: tuple[ObservedWorkload, ...]
    volumes: tuple[ObservedVolume, ...]
    number: int


class Outbox:
    """Thread-safe.

    News of what is being done is held back for a moment: most of it is done by then, and one sync
    tells the end instead of two that tell the middle as well.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._due = math.inf  # when to send what there is, by the monotonic clock
        self._number = 0
        self._latest: dict[str, tuple[int, ObservedWorkload]] = {}
        self._volumes: dict[str, tuple[int, ObservedVolume]] = {}
        self._acknowledged = 0

    @property
    def due(self) -> float:
        """When to send what there is, by the monotonic clock; infinite: there is nothing."""
        return self._due

    def poke(self) -> None:
        """Let ``wait`` return now."""
        with self._lock:
            self._send_within(0.0)

    def wait(self, timeout: float) -> bool:
        """Wait until something is to be sent, at most ``timeout`` seconds; whether it is."""
        until = time.monotonic() + timeout
        with self._lock:
            while (now := time.monotonic()) < min(self._due, until):
                self._lock.wait(min(self._due, until) - now)
            return self._due <= now

    def put(self, observed: ObservedWorkload) -> None:
        """Report ``observed`` unless it is what was reported last."""
        with self._lock:
            known = self._latest.get(observed.id)
            if known is not None and known[1] == observed:
                return
            self._number += 1
            self._latest[observed.id] = (self._number, observed)
            passing = observed.status.state in _PASSING and not observed.gone
            self._send_within(_HOLD_BACK if passing else 0.0)

    def put_volume(self, observed: ObservedVolume) -> None:
        """Report ``observed`` unless it is what was reported last."""
        with self._lock:
            known = self._volumes.get(observed.id)
            if known is not None and known[1] == observed:
                return
            self._number += 1
            self._volumes[observed.id] = (self._number, observed)
            self._send_within(0.0)

    def take(self, *, everything: bool) -> Parcel:
        """What has not been acknowledged yet, or everything."""
        with self._lock:
            self._due = math.inf
            after = 0 if everything else self._acknowledged
            return Parcel(
                workloads=tuple(one for n, one in self._latest.values() if n > after),
                volumes=tuple(one for n, one in self._volumes.values() if n > after),
                number=self._number,
            )

    def acknowledge(self, parcel: Parcel) -> None:
        """The control plane has it: forget what is gone."""
        with self._lock:
            self._acknowledged = max(self._acknowledged, parcel.number)
            for id, (number, observed) in list(self._latest.items()):
                if observed.gone and number <= parcel.number:
                    del self._latest[id]
            for id, (number, volume) in list(self._volumes.items()):
                if volume.gone and number <= parcel.number:
                    del self._volumes[id]

    def _send_within(self, seconds: float) -> None:
        self._due = min(self._due, time.monotonic() + seconds)
        self._lock.notify_all()
