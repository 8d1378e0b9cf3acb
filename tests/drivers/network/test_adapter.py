"""The network adapter against the real kernel, dnsmasq and nftables."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.network import frames
from tests.drivers.network.lab import (
    adapter,
    connect_outside,
    inside,
    neighbour,
    own_namespace,
    run,
)
from tests.drivers.network.samples import named, network, nic, workload
from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import NetworkType, port_name
from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload
from virtmgr.domain.workload import Port
from virtmgr.drivers.network.adapter import LinuxNetwork
from virtmgr.drivers.network.addresses import bridge_mac, link_local
from virtmgr.drivers.network.dnsmasq import Dnsmasq
from virtmgr.drivers.network.tools import find

pytestmark = pytest.mark.host

PATIENCE = 0.3  # seconds after which a packet that did not come was dropped

A_PORTS = (Port(host=8080, guest=80), Port(host=8081, guest=80, address="0.0.0.0"))


@dataclass(frozen=True)
class Lab:
    """Workloads a, b and d on one network, c on another, and a world outside."""

    host: LinuxNetwork
    directory: Path
    networks: tuple[DesiredNetwork, ...]
    workloads: dict[str, DesiredWorkload]
    pids: dict[str, int]

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        return run(self.pids[name], *command)

    def address(self, name: str, version: int = 4) -> str:
        port = self.workloads[name].nics[0]
        return str(port.ipv4 if version == 4 else port.ipv6).partition("/")[0]

    def listen(self, name: str, port: int, address: str = "") -> socket.socket:
        return inside(self.pids[name], lambda: socket.create_server((address, port)))

    def connect(self, name: str, address: str, port: int, patience: float = 5) -> socket.socket:
        return inside(
            self.pids[name], lambda: socket.create_connection((address, port), timeout=patience)
        )

    def reaches(self, name: str, address: str, port: int) -> bool:
        try:
            self.connect(name, address, port, PATIENCE).close()
        except TimeoutError:
            return False
        return True


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    default, other = network(64), network(65, "other")
    workloads = {
        "a": workload("a", nic(2, default), ports=A_PORTS),
        "b": workload("b", nic(3, default)),
        "c": workload("c", nic(4, other)),
        "d": workload("d", nic(5, default)),
    }
    networks = tuple(named(one, *workloads.values()) for one in (default, other))
    directory = tmp_path_factory.mktemp("network")
    with own_namespace(), ExitStack() as stack:
        host = stack.enter_context(adapter(directory))
        host.ensure(networks, workloads.values())
        pids = {name: stack.enter_context(neighbour()) for name in ("a", "b", "c", "d", "outside")}
        for name in ("a", "b", "c"):
            host.connect(workloads[name].nics[0], pids[name])
        unnumbered = dict.fromkeys(("ipv4", "ipv6", "gateway4", "gateway6"))
        host.connect(workloads["d"].nics[0].model_copy(update=unnumbered), pids["d"])
        connect_outside(pids["outside"])
        yield Lab(host, directory, networks, workloads, pids | {"host": os.getpid()})


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[LinuxNetwork]:
    """An adapter on a host of its own that has nothing yet."""
    with own_namespace(), adapter(tmp_path / "network") as made:
        yield made


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(pid: int | None) -> bool:
    """Whether a process is there and no zombie, which nobody may have waited for yet."""
    command = Path(f"/proc/{pid}/cmdline")
    return command.exists() and bool(command.read_bytes())


def nft(*command: str) -> str:
    return subprocess.run(
        [find("nft", "nftables"), *command], capture_output=True, text=True, timeout=30, check=True
    ).stdout


def links() -> dict[str, Any]:
    """Devices by name, with their addresses."""
    listing = subprocess.run(
        ["ip", "-j", "addr"], capture_output=True, timeout=30, check=True
    ).stdout
    return {
        link["ifname"]: sorted(
            (address["local"], address["prefixlen"])
            for address in link["addr_info"]
            if not address.get("tentative")
        )
        for link in json.loads(listing)
    }


# ---- what passes


@pytest.mark.parametrize("target", ["10.64.0.3", "10.64.0.1", "fd00:64::3", "fd00:64::1"])
def test_workloads_reach_each_other_and_their_gateway(lab: Lab, target: str) -> None:
    done = lab.run("a", "ping", "-c1", "-W2", target)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("a.default.virt", ["10.64.0.2", "fd00:64::2"]),
        ("a", ["10.64.0.2"]),
        ("gateway.default.virt", ["10.64.0.1"]),
        ("10.64.0.3", ["b.default.virt"]),
        ("fd00:64::3", ["b.default.virt"]),
    ],
)
def test_names_resolve_both_ways(lab: Lab, question: str, answers: list[str]) -> None:
    said = lab.run("b", "busybox", "nslookup", question, "10.64.0.1").stdout
    for answer in answers:
        assert answer in said


def test_names_of_other_networks_are_not_told(lab: Lab) -> None:
    said = lab.run("b", "busybox", "nslookup", "c.default.virt", "10.64.0.1").stdout
    assert "NXDOMAIN" in said
    assert "10.65.0.4" not in lab.run("b", "busybox", "nslookup", "c", "10.64.0.1").stdout


def test_dhcp_gives_the_address_that_the_inventory_says(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "print"
    script.write_text('#!/bin/sh\necho "$1 ip=$ip mask=$mask router=$router dns=$dns mtu=$mtu"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    done = lab.run(
        "d",
        "busybox",
        "udhcpc",
        "-fnq",
        "-O",
        "mtu",
        "-i",
        "eth0",
        "-t",
        "5",
        "-T",
        "1",
        "-s",
        str(script),
    )
    said = done.stdout + done.stderr
    assert "bound ip=10.64.0.5 mask=16 router=10.64.0.1 dns=10.64.0.1 mtu=1500" in said


def test_the_way_out_leads_through_the_hosts_address(lab: Lab) -> None:
    with lab.listen("outside", 7000) as listener, lab.connect("a", "192.0.2.2", 7000):
        connection, peer = listener.accept()
        connection.close()
        assert peer[0] == "192.0.2.1"


@pytest.mark.parametrize(
    ("client", "address", "port"),
    [
        ("host", "127.0.0.1", 8080),
        ("host", "127.0.0.1", 8081),
        ("host", "192.0.2.1", 8081),
        ("outside", "192.0.2.1", 8081),
        ("b", "10.64.0.1", 8081),
        ("c", "10.65.0.1", 8081),
    ],
)
def test_published_ports_lead_to_the_workload(
    lab: Lab, client: str, address: str, port: int
) -> None:
    with lab.listen("a", 80) as listener, lab.connect(client, address, port) as connection:
        served, _ = listener.accept()
        with served:
            served.sendall(b"hello")
        assert connection.recv(10) == b"hello"


def test_a_workload_reaches_itself_through_its_published_port(lab: Lab) -> None:
    """Not where br_netfilter hands bridged frames to nftables: then the bridge would have to
    send a frame back to where it came from.
    """
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")  # of this namespace
    if bridged.exists():
        bridged.write_text("0")
    with lab.listen("a", 80), lab.connect("a", "10.64.0.1", 8081) as connection:
        assert connection.getpeername() == ("10.64.0.1", 8081)
    if bridged.exists():
        bridged.write_text("1")


# ---- what does not pass


def test_a_port_published_on_loopback_is_not_reached_from_elsewhere(lab: Lab) -> None:
    with lab.listen("a", 80), pytest.raises(ConnectionRefusedError):
        lab.connect("outside", "192.0.2.1", 8080)
    with lab.listen("a", 80):
        assert not lab.reaches("b", "10.64.0.1", 8080)


@pytest.mark.parametrize("port", [8080, 2223])
def test_workloads_do_not_reach_the_hosts_loopback(lab: Lab, port: int) -> None:
    """CVE-2020-8558's way: route_localnet, which published ports need, allows to address it."""
    with ExitStack() as stack:
        pid = stack.enter_context(neighbour())
        stranger = nic(3, lab.networks[0])
        stack.callback(lab.host.connect, stranger, lab.pids["b"])
        lab.host.remove_port(stranger.id)
        lab.host.connect(stranger, pid)
        for command in (
            ("ip", "addr", "flush", "dev", "lo"),
            ("ip", "route", "add", "127.0.0.1", "via", "10.64.0.1"),
            ("busybox", "sysctl", "-w", "net.ipv4.conf.all.route_localnet=1"),
        ):
            assert run(pid, *command).returncode == 0
        stack.enter_context(lab.listen("a", 80))
        stack.enter_context(lab.listen("host", 2223, "127.0.0.1"))
        with pytest.raises(TimeoutError):
            inside(
                pid,
                lambda: socket.create_connection(("127.0.0.1", port), PATIENCE, ("10.64.0.3", 0)),
            )


def test_networks_do_not_reach_each_other(lab: Lab) -> None:
    with lab.listen("c", 7001):
        assert lab.reaches("host", lab.address("c"), 7001)
        assert not lab.reaches("a", lab.address("c"), 7001)
        assert not lab.reaches("a", lab.address("c", 6), 7001)


def test_the_world_outside_does_not_reach_in(lab: Lab) -> None:
    route = ("ip", "route", "add", "10.64.0.0/16", "via", "192.0.2.1")
    assert lab.run("outside", *route).returncode == 0
    with lab.listen("a", 7002):
        assert lab.reaches("b", lab.address("a"), 7002)
        assert not lab.reaches("outside", lab.address("a"), 7002)


@pytest.mark.parametrize("address", ["10.64.0.1", "192.0.2.1", "10.65.0.1", "fd00:64::1"])
def test_services_of_the_host_are_not_the_workloads_business(lab: Lab, address: str) -> None:
    listener = inside(
        lab.pids["host"],
        lambda: socket.create_server(("::", 2222), family=socket.AF_INET6, dualstack_ipv6=True),
    )
    with listener:
        assert lab.reaches("host", address, 2222)
        assert not lab.reaches("a", address, 2222)


A_MAC, B_MAC, ELSE_MAC = nic(2, network(64)).mac, nic(3, network(64)).mac, "52:00:00:00:00:99"
GATEWAY_LOCAL = link_local(bridge_mac(network(64).id))
B_LOCAL = link_local(B_MAC)

FORGED = {
    "another MAC": frames.udp4(ELSE_MAC, "10.64.0.3", 5000, 5001, b"x"),
    "another's MAC": frames.arp(A_MAC, A_MAC, "10.64.0.2"),
    "an unknown IPv4 address": frames.udp4(B_MAC, "10.64.0.99", 5000, 5001, b"x"),
    "another's IPv4 address": frames.udp4(B_MAC, "10.64.0.2", 5000, 5001, b"x"),
    "the gateway's IPv4 address": frames.udp4(B_MAC, "10.64.0.1", 5000, 5001, b"x"),
    "no IPv4 address": frames.udp4(B_MAC, "0.0.0.0", 5000, 5001, b"x"),
    "ARP for the gateway": frames.arp(B_MAC, B_MAC, "10.64.0.1"),
    "ARP for another": frames.arp(B_MAC, B_MAC, "10.64.0.2"),
    "ARP with another MAC": frames.arp(B_MAC, ELSE_MAC, "10.64.0.3"),
    "a DHCP server": frames.udp4(B_MAC, "10.64.0.3", 67, 68, b"x"),
    "a DHCPv6 server": frames.udp6(B_MAC, B_LOCAL, 547, b"x"),
    "a router": frames.router_advertisement(B_MAC, B_LOCAL),
    "another's IPv6 address": frames.udp6(B_MAC, "fd00:64::2", 5000, b"x"),
    "the gateway's link-local address": frames.udp6(B_MAC, GATEWAY_LOCAL, 5000, b"x"),
    "a neighbour for the gateway": frames.neighbour_advertisement(B_MAC, B_LOCAL, "fd00:64::1"),
    "a neighbour for the gateway, locally": frames.neighbour_advertisement(
        B_MAC, B_LOCAL, GATEWAY_LOCAL
    ),
    "a neighbour for another": frames.neighbour_advertisement(B_MAC, "fd00:64::3", "fd00:64::2"),
    "a VLAN": frames.ethernet(B_MAC, 0x8100, b"\x00\x05\x08\x00" + b"\0" * 46),
    "another protocol": frames.ethernet(B_MAC, 0x88B5, b"\0" * 46),
}
HONEST = {
    "ARP": frames.arp(B_MAC, B_MAC, "10.64.0.3"),
    "IPv4": frames.udp4(B_MAC, "10.64.0.3", 5000, 5001, b"honest"),
    "IPv6": frames.udp6(B_MAC, "fd00:64::3", 5000, b"honest"),
    "IPv6 on the link": frames.udp6(B_MAC, B_LOCAL, 5000, b"honest"),
    "a neighbour": frames.neighbour_advertisement(B_MAC, B_LOCAL, "fd00:64::3"),
    "a neighbour on the link": frames.neighbour_advertisement(B_MAC, B_LOCAL, B_LOCAL),
    "a DHCP client": frames.udp4(B_MAC, "0.0.0.0", 68, 67, b"x"),
}


@pytest.fixture
def wire(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Sends as workload b, and receives as workload a."""
    with (
        inside(lab.pids["b"], frames.packet_socket) as sender,
        inside(lab.pids["a"], frames.packet_socket) as receiver,
    ):
        yield sender, receiver


@pytest.mark.parametrize("lie", FORGED)
def test_nobody_sends_as(wire: tuple[socket.socket, socket.socket], lie: str) -> None:
    assert not frames.passes(*wire, FORGED[lie], HONEST["ARP"])


@pytest.mark.parametrize("truth", HONEST)
def test_everybody_may_send(wire: tuple[socket.socket, socket.socket], truth: str) -> None:
    other = HONEST["IPv4"] if truth == "ARP" else HONEST["ARP"]
    assert frames.passes(*wire, HONEST[truth], other)


# ---- repeating, recovering, removing


def test_doing_it_again_changes_nothing(lab: Lab) -> None:
    def all_there_is() -> tuple[Any, ...]:
        pids = [Dnsmasq(lab.directory, one.id).pid() for one in lab.networks]
        inner = [lab.run(name, "ip", "-o", "addr").stdout for name in ("a", "b", "c")]
        return nft("-a", "-s", "list", "ruleset"), links(), pids, inner

    eventually(lambda: "tentative" not in lab.run("c", "ip", "-o", "addr").stdout)
    before = all_there_is()
    lab.host.ensure(lab.networks, lab.workloads.values())
    for name in ("a", "b", "c"):
        lab.host.connect(lab.workloads[name].nics[0], lab.pids[name])
    assert all_there_is() == before
    assert None not in before[2]


def test_ports_are_those_of_connected_nics(lab: Lab) -> None:
    expected = {port_name(one.nics[0].id) for one in lab.workloads.values()}
    assert set(lab.host.ports()) == expected


def test_a_network_that_cannot_be_had_keeps_no_other_away(bare: LinuxNetwork) -> None:
    missing = network(66, "lan", type=NetworkType.BRIDGE, bridge="br-none")
    with pytest.raises(NetworkError, match="br-none") as failed:
        bare.ensure([missing, network(64)], [])
    assert list(failed.value.detail["networks"]) == [missing.id]
    assert failed.value.code == "bridge_missing"
    assert network(64).bridge in links()
    assert "virtmgr" not in nft("list", "tables")
    assert "table inet vtest" in nft("list", "tables")


def test_a_flushed_firewall_comes_back(bare: LinuxNetwork) -> None:
    bare.ensure([network(64)], [workload("a", nic(2, network(64)))])
    before = nft("list", "ruleset")
    nft("flush", "ruleset")
    bare.ensure([network(64)], [workload("a", nic(2, network(64)))])
    assert nft("list", "ruleset") == before


def test_dnsmasq_outlives_the_agent_and_is_restarted_when_it_died(tmp_path: Path) -> None:
    with own_namespace(), adapter(tmp_path / "network") as first:
        first.ensure([network(64)], [])
        dnsmasq = Dnsmasq(tmp_path / "network", network(64).id)
        pid = dnsmasq.pid()
        assert pid is not None
        with adapter(tmp_path / "network") as second:
            second.ensure([network(64)], [])
            assert dnsmasq.pid() == pid
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: dnsmasq.pid() is None)
            second.ensure([network(64)], [])
            assert dnsmasq.pid() not in (None, pid)


def test_new_names_are_taken_up_without_a_restart(bare: LinuxNetwork, tmp_path: Path) -> None:
    bare.ensure([network(64)], [])
    dnsmasq = Dnsmasq(tmp_path / "network", network(64).id)
    pid = dnsmasq.pid()
    late = workload("late", nic(9, network(64)))
    bare.ensure([named(network(64), late)], [late])

    def told() -> bool:
        command = ("busybox", "nslookup", "late.default.virt", "10.64.0.1")
        return "10.64.0.9" in run(os.getpid(), *command).stdout

    eventually(told)
    assert dnsmasq.pid() == pid


def test_a_nic_moves_to_the_process_that_has_it_now(bare: LinuxNetwork) -> None:
    port = nic(2, network(64))
    bare.ensure([network(64)], [workload("a", port)])
    with neighbour() as first, neighbour() as second:
        bare.connect(port, first)
        bare.connect(port, second)
        assert run(second, "ping", "-c1", "-W2", "10.64.0.1").returncode == 0
        assert "eth0" not in run(first, "ip", "-o", "link").stdout
        bare.disconnect(port.id)
        bare.disconnect(port.id)
        assert bare.ports() == ()


def test_connecting_to_a_network_that_is_not_there_says_so(bare: LinuxNetwork) -> None:
    with neighbour() as pid, pytest.raises(NetworkError, match="no such bridge"):
        bare.connect(nic(2, network(64)), pid)


def test_an_undesired_network_goes_with_all_that_it_had(bare: LinuxNetwork, tmp_path: Path) -> None:
    bare.ensure([network(64), network(65, "other")], [])
    gone = Dnsmasq(tmp_path / "network", network(64).id).pid()
    bare.ensure([network(65, "other")], [])
    assert network(64).bridge not in links()
    assert network(65).bridge in links()
    assert not runs(gone)
    assert [path.name for path in (tmp_path / "network").iterdir()] == [network(65).id]


def test_removing_all_leaves_nothing_but_what_is_not_ours(
    bare: LinuxNetwork, tmp_path: Path
) -> None:
    subprocess.run(["ip", "link", "add", "vmb-not-ours", "type", "bridge"], timeout=30, check=True)
    nft("add", "table", "inet", "not_ours")
    before = set(links()), nft("list", "ruleset")
    bare.ensure([network(64)], [workload("a", nic(2, network(64)))])
    pid = Dnsmasq(tmp_path / "network", network(64).id).pid()
    with neighbour() as inner:
        bare.connect(nic(2, network(64)), inner)
        bare.remove_all()
    bare.remove_all()
    assert (set(links()), nft("list", "ruleset")) == before
    assert not runs(pid)
    assert not list((tmp_path / "network").iterdir())
