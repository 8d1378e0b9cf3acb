"""Switching the power of machines from outside of them."""

from __future__ import annotations

from typing import Protocol

from virtmgr.domain.fencing import FenceDevice


class PowerControl(Protocol):
    """Speaks to fence devices. Calls take at most half a minute."""

    def is_on(self, device: FenceDevice, password: str) -> bool:
        """Whether the device says that the power is on.

        :raises Unavailable: it does not answer, refuses the log-in, or says neither.
        """
        ...

    def turn_off(self, device: FenceDevice, password: str) -> None:
        """Ask for the power to be cut at once, without a shutdown. It may be off only later.

        :raises Unavailable: it does not answer, or refuses.
        """
        ...
