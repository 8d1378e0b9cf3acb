"""The graphical console: QEMU takes one end of a socket pair as a VNC client (RFC 6143)."""

from __future__ import annotations

import socket
from typing import Any

import libvirt

from virtmgr.drivers.libvirt.errors import attempt


def connect(domain: Any, name: str) -> socket.socket:
    """A connected socket that speaks RFB. Nothing listens that anybody else could reach.

    :raises DriverError: the VM does not run, or has no display.
    """
    with attempt(f"open the display of VM {name}"):
        descriptor = domain.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    return socket.socket(fileno=descriptor)
