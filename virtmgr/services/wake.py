"""Hints to hosts: 'sync now'. Losing one costs one polling interval."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from threading import Lock

from virtmgr.services.signal import Signal


class HostWake:
    """One signal per host; the agent's long poll waits on its own."""

    def __init__(self) -> None:
        self._signals: dict[str, Signal] = defaultdict(partial(Signal, lock=Lock()))
        self._closed = False

    def wake(self, host_id: str) -> None:
        """Let the host's agent sync now, if it is waiting on this process."""
        self._signals[host_id].notify()

    def wake_all(self) -> None:
        """Let every host that waits on this process look: hints to it may have been lost."""
        for signal in list(self._signals.values()):
            signal.notify()

    def signal(self, host_id: str) -> Signal:
        """What the host's long poll waits on."""
        signal = self._signals[host_id]
        if self._closed:
            signal.close()
        return signal

    def close(self) -> None:
        """Let every long poll be answered now."""
        self._closed = True
        for signal in list(self._signals.values()):
            signal.close()
