"""Kernel parameters of the calling thread's network namespace."""

from __future__ import annotations

from pathlib import Path

from virtmgr.domain.errors import NetworkError

_ROOT = Path("/proc/sys/net")


def read_sysctl(*parts: str) -> str | None:
    """A parameter below ``net.``, each part one component; None where the kernel has it not."""
    try:
        return _ROOT.joinpath(*parts).read_text().strip()
    except FileNotFoundError:
        return None


def write_sysctl(value: str, *parts: str) -> None:
    """Set a parameter unless it has that value already.

    :raises NetworkError: the kernel refuses.
    """
    if read_sysctl(*parts) == value:
        return
    try:
        _ROOT.joinpath(*parts).write_text(value)
    except OSError as error:
        raise NetworkError(
            f"setting net.{'.'.join(parts)} to {value} failed: {error}",
            hint="the agent must run as root, with /proc/sys writable",
        ) from error


def deny_addresses(port: str) -> None:
    """Give a port of a bridge no address of its own, unless it is gone or there is no IPv6.

    The kernel would make it a link-local one. Nobody can use it, and programs on the host take a
    new address for another network: browsers break off what they load.

    :raises NetworkError: the kernel refuses.
    """
    try:
        write_sysctl("1", "ipv6", "conf", port, "disable_ipv6")
    except NetworkError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise


def enable_forwarding() -> None:
    """Make this machine pass packets between its bridges and the outside.

    IPv6 is forwarded only where ``conf.all.forwarding`` is set (ip6_forward() asks for nothing
    else), and setting that makes an interface deaf to router advertisements: a host that has its
    own default route from one would lose it. ``accept_ra`` 2 keeps listening (kernel,
    Documentation/networking/ip-sysctl.rst), so interfaces that listen now get it first.
    """
    write_sysctl("1", "ipv4", "ip_forward")
    if read_sysctl("ipv6", "conf", "all", "forwarding") in (None, "1"):
        return
    for device in sorted(path.name for path in (_ROOT / "ipv6/conf").iterdir()):
        listens = read_sysctl("ipv6", "conf", device, "accept_ra") == "1"
        if listens and device not in ("all", "default", "lo"):
            write_sysctl("2", "ipv6", "conf", device, "accept_ra")
    write_sysctl("1", "ipv6", "conf", "all", "forwarding")
