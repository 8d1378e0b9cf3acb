"""Guests on real bridges: they reach each other, names, leases and the outside."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.network.world import (
    Guest,
    eventually,
    nat_network,
    nic_on,
    plain,
    run,
    with_names,
    workload,
)
from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import NetworkType, port_name
from virtmgr.domain.sync import DesiredNetwork
from virtmgr.drivers.network.adapter import LinuxNetwork

pytestmark = pytest.mark.host

MakeGuest = Callable[[], Guest]


@pytest.fixture
def pair(adapter: LinuxNetwork, guest: MakeGuest) -> tuple[DesiredNetwork, Guest, Guest]:
    """``one`` (.2) and ``two`` (.3) on the network ``blue``."""
    network = nat_network()
    workloads = [workload("one", nic_on(network, 2)), workload("two", nic_on(network, 3))]
    network = with_names(network, *workloads)
    adapter.ensure([network], workloads)
    guests = guest(), guest()
    for each, made in zip(workloads, guests, strict=True):
        adapter.connect(each.nics[0], made.pid)
    return network, *guests


def test_guests_reach_each_other_and_the_gateway(
    pair: tuple[DesiredNetwork, Guest, Guest],
) -> None:
    _, one, two = pair
    for address in ("10.71.0.3", "fd00:71::3", "10.71.0.1", "fd00:71::1"):
        assert one.reaches(address), address
    assert two.reaches("10.71.0.2")
    assert two.reaches("fd00:71::2")


def test_a_bridge_that_is_made_again_has_its_ports(adapter: LinuxNetwork, guest: MakeGuest) -> None:
    network, one = nat_network(), guest()
    workloads = [workload("one", nic_on(network, 2))]
    adapter.ensure([network], workloads)
    adapter.connect(workloads[0].nics[0], one.pid)
    assert one.reaches("10.71.0.1")
    run("ip", "link", "delete", network.bridge)
    adapter.ensure([network], workloads)
    assert one.reaches("10.71.0.1")


def test_names_resolve_both_ways(pair: tuple[DesiredNetwork, Guest, Guest]) -> None:
    _, one, _ = pair

    def dig(*question: str, server: str = "10.71.0.1") -> str:
        return one.run("dig", "+short", "+time=2", f"@{server}", *question).stdout.strip()

    assert dig("two.blue.virt", "A") == "10.71.0.3"
    assert dig("two.blue.virt", "AAAA") == "fd00:71::3"
    assert dig("two.blue.virt", "A", server="fd00:71::1") == "10.71.0.3"
    assert dig("+tcp", "two.blue.virt", "A") == "10.71.0.3"
    assert dig("-x", "10.71.0.2") == "one.blue.virt."
    assert dig("-x", "fd00:71::2") == "one.blue.virt."
    assert dig("nobody.blue.virt", "A") == ""


def test_names_change_without_a_restart(
    adapter: LinuxNetwork, guest: MakeGuest, run_directory: Path
) -> None:
    network, one = nat_network(), guest()
    workloads = [workload("one", nic_on(network, 2))]
    network = with_names(network, *workloads)
    adapter.ensure([network], workloads)
    adapter.connect(workloads[0].nics[0], one.pid)
    pid_file = run_directory / network.id / "dnsmasq.pid"
    before = pid_file.read_text()
    new = workload("new", nic_on(network, 9))
    names = (*network.names, *with_names(network, new).names)
    adapter.ensure([network.model_copy(update={"names": names})], [*workloads, new])
    ask = ("dig", "+short", "+time=2", "@10.71.0.1", "new.blue.virt")
    eventually(lambda: one.run(*ask).stdout == "10.71.0.9\n")
    assert pid_file.read_text() == before


def test_dhcp_gives_the_fixed_lease_and_a_new_owner_gets_it_at_once(
    adapter: LinuxNetwork, guest: MakeGuest, tmp_path: Path
) -> None:
    script = tmp_path / "show"
    script.write_text(
        '#!/bin/sh\n[ "$1" = bound ] && echo "$ip $mask $router $dns $domain"\nexit 0\n'
    )
    script.chmod(0o755)
    network = nat_network()
    for name in ("first", "second"):
        each = workload(name, nic_on(network, 7))
        adapter.ensure([with_names(network, each)], [each])
        made = guest()
        unaddressed = each.nics[0].model_copy(
            update={"ipv4": None, "ipv6": None, "gateway4": None, "gateway6": None}
        )
        adapter.connect(unaddressed, made.pid)
        leased = made.run(
            "busybox",
            "udhcpc",
            "-i",
            "eth0",
            "-n",
            "-q",
            "-f",
            "-t",
            "8",
            "-T",
            "1",
            "-s",
            str(script),
        )
        assert leased.stdout.strip() == "10.71.0.7 16 10.71.0.1 10.71.0.1 blue.virt", leased
        adapter.remove_port(each.nics[0].id)


def test_router_advertisements_tell_vms_their_gateway(
    adapter: LinuxNetwork, guest: MakeGuest
) -> None:
    network = nat_network()
    each = workload("vm", nic_on(network, 7))
    adapter.ensure([with_names(network, each)], [each])
    made = guest()
    adapter.connect(each.nics[0].model_copy(update={"ipv6": None, "gateway6": None}), made.pid)

    def listen() -> None:
        Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").write_text("2")

    made.inside(listen)
    made.run("ip", "link", "set", "eth0", "down")
    made.run("ip", "link", "set", "eth0", "up")
    eventually(lambda: "default via fe80::" in made.run("ip", "-6", "route").stdout, patience=30)


def test_guests_reach_the_outside_as_the_host_and_are_not_reached(
    adapter: LinuxNetwork, guest: MakeGuest
) -> None:
    outside = guest()
    run(
        "ip",
        "link",
        "add",
        "up0",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        str(outside.pid),
    )
    for address, peer in (("192.0.2.1/24", "192.0.2.2/24"), ("2001:db8::1/64", "2001:db8::2/64")):
        run("ip", "addr", "add", address, "dev", "up0", "nodad")
        outside.run("ip", "addr", "add", peer, "dev", "eth0", "nodad")
    run("ip", "link", "set", "up0", "up")
    outside.run("ip", "link", "set", "eth0", "up")
    network = nat_network()
    each = workload("one", nic_on(network, 2))
    adapter.ensure([network], [each])
    made = guest()
    adapter.connect(each.nics[0], made.pid)
    assert made.reaches("192.0.2.2")  # has no route back: only masqueraded can this be answered
    eventually(lambda: made.pings("2001:db8::2"))  # once the uplink's link-local address is sure
    outside.run("ip", "route", "add", "10.71.0.0/16", "via", "192.0.2.1")
    assert outside.reaches("192.0.2.1")
    assert not outside.pings("10.71.0.2")


def test_networks_are_isolated_from_each_other(adapter: LinuxNetwork, guest: MakeGuest) -> None:
    blue, red = nat_network("blue", 71), nat_network("red", 72)
    workloads = [workload("one", nic_on(blue, 2)), workload("two", nic_on(red, 2))]
    adapter.ensure([blue, red], workloads)
    guests = guest(), guest()
    for each, made in zip(workloads, guests, strict=True):
        adapter.connect(each.nics[0], made.pid)
    assert not guests[0].pings("10.72.0.2")
    assert not guests[0].pings("fd00:72::2")
    foreign = guests[0].run("dig", "+short", "+time=1", "+tries=1", "@10.72.0.1", "two.red.virt")
    assert foreign.returncode != 0
    assert not run("ip", "route", "get", "10.72.0.2").returncode


def test_guests_reach_no_service_of_the_host(
    pair: tuple[DesiredNetwork, Guest, Guest],
) -> None:
    _, one, _ = pair
    one.run("ip", "addr", "flush", "dev", "lo")
    one.run("ip", "route", "add", "127.0.0.0/8", "via", "10.71.0.1")
    with socket.create_server(("0.0.0.0", 9999)):
        for address in ("10.71.0.1", "127.0.0.1"):
            assert one.run("curl", "-sm1", f"http://{address}:9999/").returncode == 28, address


def test_connect_repeats_and_repairs(
    adapter: LinuxNetwork, pair: tuple[DesiredNetwork, Guest, Guest]
) -> None:
    network, one, two = pair
    nic = nic_on(network, 2)
    adapter.ensure([network], [workload("again", nic)])
    with pytest.raises(NetworkError, match="another device of that name"):
        adapter.connect(nic, one.pid)
    [port, _] = adapter.ports()
    run("ip", "link", "delete", port)
    survivor = one if "eth0" not in one.run("ip", "link").stdout else two
    adapter.connect(nic, survivor.pid)
    survivor.run("ip", "addr", "flush", "dev", "eth0")  # as if it had crashed before addresses
    survivor.run("ip", "link", "set", "eth0", "down")
    run("ip", "link", "set", port_name(nic.id), "down", "nomaster")
    adapter.connect(nic, survivor.pid)
    adapter.connect(nic, survivor.pid)
    assert survivor.reaches("10.71.0.1")
    assert survivor.reaches("fd00:71::1")
    adapter.disconnect(nic.id)
    adapter.disconnect(nic.id)
    assert port_name(nic.id) not in adapter.ports()


def test_connect_moves_a_nic_that_an_earlier_container_left(
    adapter: LinuxNetwork, pair: tuple[DesiredNetwork, Guest, Guest], guest: MakeGuest
) -> None:
    network, _, _ = pair
    nic = nic_on(network, 8)
    adapter.ensure([network], [workload("again", nic)])
    for made in (guest(), guest()):
        adapter.connect(nic, made.pid)
        assert made.reaches("10.71.0.1")


def test_connect_refuses_the_host_and_the_dead(adapter: LinuxNetwork) -> None:
    network = nat_network()
    nic = nic_on(network, 2)
    adapter.ensure([network], [])
    with pytest.raises(NetworkError, match="host's own namespace"):
        adapter.connect(nic, os.getpid())
    with pytest.raises(NetworkError, match="network namespace of process"):
        adapter.connect(nic, 2**22 + 1)
    assert adapter.ports() == ()


def test_host_bridge_is_joined_or_its_absence_explained(
    adapter: LinuxNetwork, guest: MakeGuest
) -> None:
    office = DesiredNetwork(
        id=nat_network().id, name="office", type=NetworkType.BRIDGE, bridge="office0"
    )
    blue = nat_network()
    nics = [nic_on(office, 0, known=False), nic_on(blue, 2, index=1)]
    each = workload("one", *nics)
    with pytest.raises(NetworkError, match="office0, which this host does not have"):
        adapter.ensure([office, blue], [each])
    run("ip", "link", "add", "office0", "type", "bridge")
    run("ip", "addr", "add", "198.51.100.1/24", "dev", "office0")
    run("ip", "link", "set", "office0", "up")
    adapter.ensure([office, blue], [each])
    assert adapter.bridge_of(office.id) == "office0"
    made = guest()
    for nic in nics:
        adapter.connect(nic, made.pid)
    made.run("ip", "addr", "add", "198.51.100.9/24", "dev", "eth0")
    assert made.reaches("198.51.100.1")
    assert made.reaches(plain(blue.gateway4) or "")
    adapter.remove_all()
    assert run("ip", "link", "show", "office0").returncode == 0
    run("ip", "link", "delete", "office0")


def test_dnsmasq_is_adopted_by_the_next_agent_and_restarted_when_it_died(
    adapter: LinuxNetwork, run_directory: Path, tmp_path: Path
) -> None:
    network = nat_network()
    adapter.ensure([network], [])
    pid_file = run_directory / network.id / "dnsmasq.pid"
    first = int(pid_file.read_text())
    again = LinuxNetwork(
        run_directory=run_directory, table="virtmgr-test", resolv_file=tmp_path / "resolv.conf"
    )
    again.recover()
    again.ensure([network], [])
    assert int(pid_file.read_text()) == first
    assert again.healthy()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not again.healthy())
    again.ensure([network], [])
    assert int(pid_file.read_text()) != first
    assert again.healthy()
    second = pid_file.read_text()
    pid_file.write_text(str(os.getpid()))  # a number that is somebody else's by now
    try:
        assert not again.healthy()
    finally:
        pid_file.write_text(second)
