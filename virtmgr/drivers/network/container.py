"""A container's NIC: a veth pair between the bridge and the container's network namespace."""

from __future__ import annotations

import errno

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import port_name
from virtmgr.domain.sync import DesiredNic
from virtmgr.drivers.network.namespace import in_namespace_of, is_own_namespace
from virtmgr.drivers.network.netlink import Link, add_address, delete_link, find_link, netlink
from virtmgr.drivers.sysctl import deny_addresses, write_sysctl

_KERNEL_METRIC6 = 1024  # what the kernel takes where none is given


def connect_container(nic: DesiredNic, bridge: str, pid: int) -> None:
    """Let ``nic`` be eth``index`` in the namespace of ``pid``, with addresses and routes.

    The kernel makes both ends, named and in their namespaces, in one step, so a crash leaves a
    pair or none; settings are then repeated safely.

    :raises NetworkError: the bridge is missing, the process has ended, or the name is taken.
    """
    inside, port = f"eth{nic.index}", port_name(nic.id)
    if is_own_namespace(pid):
        raise NetworkError(
            f"connecting {inside} of process {pid} failed: it is in the host's own namespace",
            hint="the container must be made with a network namespace of its own",
        )
    with netlink(f"connecting {inside} of process {pid} to bridge {bridge}") as ip:
        _ensure_pair(ip, nic, bridge, pid)
        deny_addresses(port)
        ip.link("set", ifname=port, state="up")
        in_namespace_of(pid, lambda: _configure(nic, inside))


def _ensure_pair(ip: IPRoute, nic: DesiredNic, bridge: str, pid: int) -> None:
    master = find_link(ip, bridge)
    if master is None:
        raise NetworkError(
            f"connecting eth{nic.index} to bridge {bridge} failed: this host has no such bridge",
            code="bridge_missing",
            hint="the agent makes it when the network is desired; see its log",
        )
    port = find_link(ip, port_name(nic.id))
    if port is not None and not _leads_to(port, nic, pid):
        delete_link(ip, port.name)
        port = None
    if port is None:
        _make_pair(ip, nic, master, pid)
    elif port.master != master.index:
        ip.link("set", index=port.index, master=master.index)


def _make_pair(ip: IPRoute, nic: DesiredNic, master: Link, pid: int) -> None:
    inside = f"eth{nic.index}"
    try:
        ip.link(
            "add",
            ifname=port_name(nic.id),
            kind="veth",
            mtu=nic.mtu,
            master=master.index,
            peer={"ifname": inside, "address": nic.mac, "mtu": nic.mtu, "net_ns_pid": pid},
        )
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise NetworkError(
                f"connecting {inside} of process {pid} failed: it has another device of that name",
                hint="restart the workload",
            ) from error
        raise


def _leads_to(port: Link, nic: DesiredNic, pid: int) -> bool:
    """Whether the other end of ``port`` is this NIC in that namespace."""
    found: list[bool] = []

    def look() -> None:
        with netlink(f"looking at the devices of process {pid}") as ip:
            link = find_link(ip, f"eth{nic.index}")
        found.append(
            link is not None
            and (link.index, link.peer, link.mac) == (port.peer, port.index, nic.mac.lower())
        )

    in_namespace_of(pid, look)
    return found[0]


def _configure(nic: DesiredNic, name: str) -> None:
    """Addresses and routes, in the container's namespace.

    Router advertisements are not listened to: the inventory gives addresses and gateway.
    """
    write_sysctl("0", "ipv6", "conf", name, "accept_ra")
    if nic.ipv6 is not None:
        write_sysctl("0", "ipv6", "conf", name, "disable_ipv6")
    with netlink(f"configuring {name} in a container") as ip:
        link = find_link(ip, name)
        if link is None:
            raise NetworkError(
                f"configuring {name} failed: it vanished",
                hint="the workload has ended; see its log",
            )
        ip.link("set", ifname="lo", state="up")
        ip.link("set", index=link.index, mtu=nic.mtu, state="up")
        for address in filter(None, (nic.ipv4, nic.ipv6)):
            add_address(ip, link.index, address)
        for destination, gateway, metric in (
            ("0.0.0.0/0", nic.gateway4, 0),
            ("::/0", nic.gateway6, _KERNEL_METRIC6),
        ):
            if gateway is not None:
                ip.route(
                    "replace",
                    dst=destination,
                    gateway=gateway,
                    oif=link.index,
                    priority=metric + nic.index,  # the first NIC's route wins
                )
