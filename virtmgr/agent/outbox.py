"""Observations on their way up: the latest of each workload, until the control plane has it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from virtmgr.domain.sync import ObservedVolume, ObservedWorkload


@dataclass(frozen=True)
class Parcel:
    """What one sync carries. ``number`` says how new it is."""

    workloads: tuple[ObservedWorkload, ...]
    volumes: tuple[ObservedVolume, ...]
    number: int


class Outbox:
    """Thread-safe. ``changed`` is set while something waits to be sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._latest: dict[str, tuple[int, ObservedWorkload]] = {}
        self._volumes: dict[str, tuple[int, ObservedVolume]] = {}
        self._acknowledged = 0
        self.changed = threading.Event()

    def put(self, observed: ObservedWorkload) -> None:
        """Report ``observed`` unless it is what was reported last."""
        with self._lock:
            known = self._latest.get(observed.id)
            if known is not None and known[1] == observed:
                return
            self._number += 1
            self._latest[observed.id] = (self._number, observed)
            self.changed.set()

    def put_volume(self, observed: ObservedVolume) -> None:
        """Report ``observed`` unless it is what was reported last."""
        with self._lock:
            known = self._volumes.get(observed.id)
            if known is not None and known[1] == observed:
                return
            self._number += 1
            self._volumes[observed.id] = (self._number, observed)
            self.changed.set()

    def take(self, *, everything: bool) -> Parcel:
        """What has not been acknowledged yet, or everything."""
        with self._lock:
            self.changed.clear()
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
