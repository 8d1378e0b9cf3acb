"""Switching the power of machines from outside of them."""

from __future__ import annotations

from typing import Protocol

from virtmgr.domain.fencing import FenceDevice, Transport
from virtmgr.ports.streams import AgentStream


class Way(Protocol):
    """How a device is reached through another host."""

    def open(self, transport: Transport) -> AgentStream:
        """A connection to the device: what is sent on STDIN goes to it, what it says comes on
        STDOUT. Over UDP each message is one datagram.

        :raises VirtmgrError: the host does not answer, or does not reach the device.
        """
        ...


class PowerControl(Protocol):
    """Speaks to fence devices, directly or by a way. Calls take at most a minute."""

    def is_on(self, device: FenceDevice, password: str, way: Way | None = None) -> bool:
        """Whether the device says that the power is on.

        :raises VirtmgrError: it does not answer, refuses the log-in, or says neither.
        """
        ...

    def turn_off(self, device: FenceDevice, password: str, way: Way | None = None) -> None:
        """Ask for the power to be cut at once, without a shutdown. It may be off only later.

        :raises VirtmgrError: it does not answer, or refuses.
        """
        ...
