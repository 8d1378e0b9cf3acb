"""Bridges and veth pairs over netlink; no process is started for any of it."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import port_name
from virtmgr.domain.sync import DesiredNetwork, DesiredNic
from virtmgr.drivers.network.addresses import bridge_mac

_CLONE_NEWNET = 0x40000000
_NO_DAD = 0x02  # IFA_F_NODAD: the inventory already knows that nobody else has the address
_SYSCTL = Path("/proc/sys/net")

T = TypeVar("T")


class Links:
    """The host's own links, over one netlink socket that threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._route = IPRoute()

    def close(self) -> None:
        self._route.close()

    def index(self, name: str) -> int | None:
        """The device's index; None: there is none."""
        with self._lock:
            found = self._route.link_lookup(ifname=name)
        return int(found[0]) if found else None

    def names(self, prefix: str) -> tuple[str, ...]:
        """Devices whose names begin with ``prefix``."""
        with self._lock:
            found = [link.get_attr("IFLA_IFNAME") for link in self._route.get_links()]
        return tuple(sorted(name for name in found if name.startswith(prefix)))

    def aliases(self, prefix: str) -> dict[str, str]:
        """Devices whose alias begins with ``prefix``, and that alias."""
        with self._lock:
            links = list(self._route.get_links())
        found = {link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_IFALIAS") for link in links}
        return {name: alias for name, alias in found.items() if (alias or "").startswith(prefix)}

    def ensure_bridge(self, network: DesiredNetwork, alias: str) -> None:
        """The network's bridge, up, with its gateway addresses."""
        index = self.index(network.bridge)
        with self._lock:
            if index is None:
                self._route.link(
                    "add",
                    ifname=network.bridge,
                    kind="bridge",
                    br_stp_state=0,
                    br_forward_delay=0,
                    address=bridge_mac(network.id),
                )
                index = self._route.link_lookup(ifname=network.bridge)[0]
            self._route.link("set", index=index, ifalias=alias, mtu=network.mtu, state="up")
            present = {
                address.get_attr("IFA_ADDRESS") for address in self._route.get_addr(index=index)
            }
            pairs = ((network.gateway4, network.ipv4), (network.gateway6, network.ipv6))
            for gateway, cidr in pairs:
                if gateway is not None and cidr is not None and gateway not in present:
                    _add_address(self._route, index, gateway, ipaddress.ip_network(cidr).prefixlen)
        _set(_SYSCTL / "ipv4/ip_forward", "1")
        _set(_SYSCTL / f"ipv4/conf/{network.bridge}/route_localnet", "1")
        _set(_SYSCTL / f"ipv6/conf/{network.bridge}/forwarding", "1")

    def remove(self, name: str) -> None:
        """Remove a device; no error if it is gone."""
        index = self.index(name)
        if index is None:
            return
        with self._lock, _gone_is_fine():
            self._route.link("del", index=index)

    def connect(self, nic: DesiredNic, bridge: str, pid: int) -> None:
        """A veth pair: one end on the bridge, the other as eth``n`` in the namespace of ``pid``.

        Whatever an earlier try left is replaced.
        """
        port, inside = port_name(nic.id), f"eth{nic.index}"
        bridge_index = self.index(bridge)
        if bridge_index is None:
            raise NetworkError(
                f"connecting {inside} to bridge {bridge}: the host has no such bridge",
                hint="make the bridge on the host, or use another network",
            )
        if self.index(port) is not None:
            if _in_namespace(pid, lambda route: _is_configured(route, nic, inside)):
                return
            self.remove(port)
        with self._lock:
            peer = {
                "ifname": inside,
                "net_ns_pid": pid,
                "address": nic.mac,
                "mtu": nic.mtu,
            }
            self._route.link("add", ifname=port, kind="veth", mtu=nic.mtu, peer=peer)
            index = self._route.link_lookup(ifname=port)[0]
            self._route.link("set", index=index, master=bridge_index, state="up")
        _set(_SYSCTL / f"ipv6/conf/{port}/disable_ipv6", "1")
        _in_namespace(pid, lambda route: _configure(route, nic, inside))


def _configure(route: Any, nic: DesiredNic, name: str) -> None:
    loopback = route.link_lookup(ifname="lo")[0]
    route.link("set", index=loopback, state="up")
    index = route.link_lookup(ifname=name)[0]
    route.link("set", index=index, state="up")
    for address in (nic.ipv4, nic.ipv6):
        if address is not None:
            interface = ipaddress.ip_interface(address)
            _add_address(route, index, str(interface.ip), interface.network.prefixlen)
    if nic.index == 0:
        for gateway, destination in ((nic.gateway4, "0.0.0.0/0"), (nic.gateway6, "::/0")):
            if gateway is not None:
                route.route("replace", dst=destination, gateway=gateway, oif=index)


def _is_configured(route: Any, nic: DesiredNic, name: str) -> bool:
    found = route.link_lookup(ifname=name)
    if not found:
        return False
    present = {address.get_attr("IFA_ADDRESS") for address in route.get_addr(index=found[0])}
    wanted = {str(ipaddress.ip_interface(a).ip) for a in (nic.ipv4, nic.ipv6) if a is not None}
    return wanted <= present


def _in_namespace(pid: int, work: Callable[[Any], T]) -> T:
    """``work`` with netlink in the network namespace of ``pid``.

    In a thread of its own, which ends: a thread that changed its namespace is good for nothing
    else. The namespace is that of the thread that makes the socket.
    """

    def run() -> T:
        handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(handle, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(handle)
        with IPRoute() as route:
            return work(route)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def _add_address(route: Any, index: int, address: str, prefix: int) -> None:
    with _exists_is_fine():
        flags = {"flags": _NO_DAD} if ":" in address else {}
        route.addr("add", index=index, address=address, prefixlen=prefix, **flags)


class _exists_is_fine(suppress):
    """Netlink's EEXIST: a step is repeated."""

    def __init__(self) -> None:
        super().__init__(NetlinkError)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return isinstance(error, NetlinkError) and error.code == errno.EEXIST


class _gone_is_fine(suppress):
    """Netlink's ENODEV: somebody else removed it first."""

    def __init__(self) -> None:
        super().__init__(NetlinkError)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return isinstance(error, NetlinkError) and error.code == errno.ENODEV


def _set(path: Path, value: str) -> None:
    """A sysctl; one that the kernel does not have needs no setting."""
    if path.exists() and path.read_text().strip() != value:
        path.write_text(value)
