"""Small verbs over pyroute2, so that the rest of the package speaks of devices."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from virtmgr.domain.errors import NetworkError

IFF_UP = 1
IFA_F_NODAD = 0x02


@dataclass(frozen=True)
class Link:
    """One network device as the kernel has it."""

    index: int
    name: str
    kind: str  # bridge, veth, tun, …; empty for hardware
    mac: str
    mtu: int
    up: bool
    alias: str
    master: int | None
    peer: int | None  # veth: index of the other end, in its own namespace


def find_link(ip: IPRoute, name: str) -> Link | None:
    """The device of that name in the socket's network namespace."""
    try:
        found = list(ip.link("get", ifname=name))
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    return _link(found[0])


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") or "") if info else "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & IFF_UP),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        master=message.get_attr("IFLA_MASTER"),
        peer=message.get_attr("IFLA_LINK"),
    )


def device_index(name: str) -> int:
    """The device's number, which no later one of that name has; 0 if there is none. Cheap."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def marked(mark: str, prefix: str, *, unless: Collection[str] = ()) -> Mapping[str, str]:
    """What follows ``mark`` in a device's alias to its name, of devices whose names begin so.

    :param unless: names of devices that need not be looked at.
    """
    present = {name for _, name in socket.if_nameindex() if name.startswith(prefix)}
    names = sorted(present.difference(unless))
    if not names:
        return {}
    with netlink("listing this host's network devices") as ip:
        links = [link for name in names if (link := find_link(ip, name)) is not None]
    return {
        link.alias.removeprefix(mark): link.name for link in links if link.alias.startswith(mark)
    }


def link_with_address(ip: IPRoute, address: str) -> Link | None:
    """The device that has this address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for message in ip.addr("dump", family=family):
        local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if local is not None and ip_address(local) == ip_address(address):
            return _link(next(iter(ip.link("get", index=message["index"]))))
    return None


def delete_link(ip: IPRoute, name: str) -> None:
    """Remove the device; no error if it is gone."""
    link = find_link(ip, name)
    if link is None:
        return
    try:
        ip.link("del", index=link.index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def addresses(ip: IPRoute, index: int) -> frozenset[str]:
    """The device's addresses with prefix length, in canonical text."""
    return frozenset(
        str(ip_interface(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"))
        for message in ip.addr("dump", index=index)
        if message["index"] == index
    )


def add_address(ip: IPRoute, index: int, address: str) -> None:
    """Give the device an address, without IPv6's duplicate address detection.

    Addresses are unique by the inventory; detection would only keep them unusable for a second.
    """
    interface = ip_interface(address)
    flags = {"flags": IFA_F_NODAD} if interface.version == 6 else {}
    ip.addr(
        "replace",
        index=index,
        address=str(interface.ip),
        prefixlen=interface.network.prefixlen,
        **flags,
    )


@contextmanager
def netlink(attempt: str) -> Iterator[IPRoute]:
    """A netlink socket in the calling thread's network namespace (0.8 ms to open).

    :param attempt: what is being done, for the error.
    :raises NetworkError: when the kernel refuses something within.
    """
    try:
        with IPRoute() as ip:
            yield ip
    except (NetlinkError, OSError) as error:
        raise NetworkError(
            f"{attempt} failed: {error}", hint="see the agent's log on the host"
        ) from error
