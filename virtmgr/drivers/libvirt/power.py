"""Power verbs on a domain. Each does nothing where the domain is in that state already."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from virtmgr.drivers.libvirt.events import Events

_PID_FILES = Path("/run/libvirt/qemu")
_PRESS_AGAIN = 10.0  # seconds; a guest that was still booting has not seen the button
_PAUSED = libvirt.VIR_DOMAIN_PAUSED
_RUNNING = {
    libvirt.VIR_DOMAIN_RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED,
    libvirt.VIR_DOMAIN_SHUTDOWN,
}
_RACE = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)


def is_active(domain: Any) -> bool:
    """Whether QEMU runs for it."""
    state = domain.state()[0]
    return state not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)


def start(domain: Any) -> None:
    try:
        domain.create()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not is_active(domain):
            raise


def pause(domain: Any) -> None:
    if domain.state()[0] != _PAUSED:
        domain.suspend()


def resume(domain: Any) -> None:
    if domain.state()[0] not in _RUNNING:
        domain.resume()


def stop(domain: Any, events: Events, *, timeout: float) -> None:
    """Ask the guest to shut down, wait up to ``timeout`` seconds, then end QEMU.

    The power button is pressed again from time to time: a guest may have been booting.
    """
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0 and is_active(domain):
        _ask(domain)
        events.wait_until(lambda: not is_active(domain), min(left, _PRESS_AGAIN))
    if is_active(domain):
        _unless_ended(domain.destroy)


def _ask(domain: Any) -> None:
    """By the power button: a guest agent that hangs would hold us up."""
    _unless_ended(lambda: resume(domain))  # a paused guest could not react
    _unless_ended(lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))


def _unless_ended(call: Callable[[], object]) -> None:
    """Call, unless the domain has just ended by itself."""
    try:
        call()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _RACE:
            raise


def pid(domain: Any) -> int | None:
    """QEMU's process id, from the file that libvirt keeps; None if it does not run."""
    try:
        return int((_PID_FILES / f"{domain.name()}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
