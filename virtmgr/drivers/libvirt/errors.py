"""The one place where libvirt's errors become virtmgr's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from virtmgr.domain.errors import DriverError

UNAVAILABLE = "libvirt_unavailable"
NO_DOMAIN = "no_domain"
NO_AGENT = "no_guest_agent"

_LOST = {
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
}
_NO_AGENT = {libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED}
_INSTALL_AGENT = (
    "install and start qemu-guest-agent in the guest; one that has it may still be booting"
)
_START_LIBVIRT = "start libvirtd (systemctl start libvirtd); virtmgr reconnects by itself"
_HINTS = (
    ("Permission denied", "let QEMU's user (libvirt-qemu or qemu) reach and read that path"),
    ("No space left", "free space where the host keeps its disks"),
    ("Cannot allocate memory", "the host is out of memory; stop something or move it elsewhere"),
    ("Cannot get interface MTU", "the network's bridge is missing on this host"),
    ('Failed to get "write" lock', "another process has the disk open; end it first"),
    (
        "has been disabled",
        "the guest's qemu-ga is configured to refuse it (allow-rpcs, block-rpcs)",
    ),
    ("virtlogd", "start virtlogd (systemctl start virtlogd)"),
)


def is_lost(error: libvirt.libvirtError) -> bool:
    """Whether ``error`` says that the connection to libvirtd is gone."""
    code, domain = error.get_error_code(), error.get_error_domain()
    if code in _LOST:
        return True
    in_transport = domain in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)
    return in_transport and code in (
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_INTERNAL_ERROR,
    )


def translate(attempted: str, error: libvirt.libvirtError) -> DriverError:
    """``error`` as a DriverError that says what was attempted, why it failed and what to do."""
    why = (error.get_error_message() or str(error)).strip()
    message = f"cannot {attempted}: {why}"
    if is_lost(error):
        return DriverError(message, code=UNAVAILABLE, hint=_START_LIBVIRT)
    if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return DriverError(message, code=NO_DOMAIN, hint="prepare the VM first")
    if error.get_error_code() in _NO_AGENT:
        return DriverError(message, code=NO_AGENT, hint=_INSTALL_AGENT)
    hint = next((hint for mark, hint in _HINTS if mark in why), None)
    return DriverError(message, hint=hint or "libvirtd's log on the host may tell more")


@contextmanager
def attempt(what: str) -> Iterator[None]:
    """Run a block of libvirt calls; ``what`` completes the sentence "cannot …".

    :raises DriverError: in place of every ``libvirtError``.
    """
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(what, error) from error
