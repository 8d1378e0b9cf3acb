"""Published ports: reached from host, outside and other guests; never taken from anybody."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.network.world import Guest, fetch, nat_network, nic_on, run, workload
from virtmgr.domain.sync import DesiredNetwork
from virtmgr.domain.workload import Port, PowerState
from virtmgr.drivers.network.adapter import LinuxNetwork

pytestmark = pytest.mark.host

MakeGuest = Callable[[], Guest]
EVERY = "0.0.0.0"


@pytest.fixture
def outside(guest: MakeGuest) -> Guest:
    """A neighbour of the host, at 192.0.2.2 and 2001:db8::2; the host has .1 and ::1."""
    made = guest()
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", str(made.pid))
    for address, peer in (("192.0.2.1/24", "192.0.2.2/24"), ("2001:db8::1/64", "2001:db8::2/64")):
        run("ip", "addr", "add", address, "dev", "up0", "nodad")
        made.run("ip", "addr", "add", peer, "dev", "eth0", "nodad")
    run("ip", "link", "set", "up0", "up")
    made.run("ip", "link", "set", "eth0", "up")
    return made


@pytest.fixture
def web(
    adapter: LinuxNetwork, guest: MakeGuest, tmp_path: Path
) -> tuple[DesiredNetwork, Guest, Guest]:
    """A web server on port 80 that publishes ports, and a neighbour on its network."""
    network = nat_network()
    ports = (
        Port(host=8001, guest=80),
        Port(host=8002, guest=80, address=EVERY),
        Port(host=8003, guest=80, address="192.0.2.1"),
        Port(host=8004, guest=80, address="::"),
        Port(host=9000, guest=7, protocol="udp", address=EVERY),
    )
    workloads = [
        workload("web", nic_on(network, 2), ports=ports),
        workload("b", nic_on(network, 3)),
    ]
    guests = guest(), guest()
    run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    adapter.ensure([network], workloads)
    for each, made in zip(workloads, guests, strict=True):
        adapter.connect(each.nics[0], made.pid)
    guests[0].serve(tmp_path / "www", 80, "hello")
    guests[0].echo_udp(7)
    return network, *guests


@pytest.mark.usefixtures("web")
def test_reached_from_the_host() -> None:
    urls = (
        "http://127.0.0.1:8001/",
        "http://127.0.0.1:8002/",
        "http://10.71.0.1:8002/",
        "http://192.0.2.1:8003/",
        "http://[fd00:71::1]:8004/",
    )
    assert {url: fetch(url) for url in urls} == dict.fromkeys(urls, "hello")
    assert fetch("http://10.71.0.1:8001/") == ""


@pytest.mark.usefixtures("web")
def test_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.sendto(b"echo", ("127.0.0.1", 9000))
        assert client.recv(100) == b"echo"


@pytest.mark.usefixtures("web")
def test_reached_from_outside_only_where_published(outside: Guest) -> None:
    def from_outside(url: str) -> str:
        return outside.run("curl", "-gsm2", url).stdout

    assert from_outside("http://192.0.2.1:8002/") == "hello"
    assert from_outside("http://192.0.2.1:8003/") == "hello"
    assert from_outside("http://[2001:db8::1]:8004/") == "hello"
    assert from_outside("http://192.0.2.1:8001/") == ""
    outside.run("ip", "route", "add", "10.71.0.0/16", "via", "192.0.2.1")
    outside.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    outside.run("ip", "route", "add", "127.0.0.0/8", "via", "192.0.2.1", "dev", "eth0")
    assert from_outside("http://10.71.0.2:80/") == ""
    assert from_outside("http://127.0.0.1:8001/") == ""


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_reached_from_neighbour_and_from_itself(
    web: tuple[DesiredNetwork, Guest, Guest], bridge_netfilter: str
) -> None:
    """With br_netfilter on, the kernel never sends a frame back to the port it came from."""
    for name in ("iptables", "ip6tables"):
        setting = Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}")
        if setting.exists():
            setting.write_text(bridge_netfilter)
    _, itself, neighbour = web
    for made in (neighbour, itself) if bridge_netfilter == "0" else (neighbour,):
        assert made.run("curl", "-gsm2", "http://10.71.0.1:8002/").stdout == "hello"
        assert made.run("curl", "-gsm2", "http://[fd00:71::1]:8004/").stdout == "hello"


def test_a_port_that_the_host_uses_is_left_to_it(adapter: LinuxNetwork) -> None:
    network = nat_network()
    with socket.create_server(("127.0.0.1", 8001)):
        ports = (Port(host=8001, guest=80), Port(host=8002, guest=80))
        each = workload("web", nic_on(network, 2), ports=ports)
        adapter.ensure([network], [each])
        rules = run("nft", "list", "map", "inet", "virtmgr-test", "loopback").stdout
        assert "8002" in rules
        assert "8001" not in rules
        why = adapter.port_conflicts([each])[each.id]
        assert "127.0.0.1:8001/tcp cannot be published" in why
        assert "process" in why
    assert adapter.port_conflicts([each]) == {}


def test_a_published_port_is_held_against_others_and_given_back(adapter: LinuxNetwork) -> None:
    network = nat_network()
    ports = (Port(host=8001, guest=80, address=EVERY), Port(host=8001, guest=80, protocol="udp"))
    each = workload("web", nic_on(network, 2), ports=ports)
    other = workload("other", nic_on(network, 3), ports=(Port(host=8001, guest=1),))
    adapter.ensure([network], [each])
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", 8001))
    assert (
        "workload 'web' has published 0.0.0.0:8001/tcp" in adapter.port_conflicts([other])[other.id]
    )
    adapter.ensure([network], [each.model_copy(update={"state": PowerState.STOPPED}), other])
    assert adapter.port_conflicts([other]) == {}


def test_what_cannot_be_published_is_explained(adapter: LinuxNetwork) -> None:
    network = nat_network()
    adapter.ensure([network], [])
    cases = {
        "::1": "Linux does not route ::1",
        "198.51.100.77": "does not have the address",
        "224.0.0.1": "multicast",
    }
    for address, reason in cases.items():
        each = workload("web", nic_on(network, 2), ports=(Port(host=81, guest=1, address=address),))
        assert reason in adapter.port_conflicts([each])[each.id]
    bare = workload("bare", ports=(Port(host=81, guest=1),))
    assert "no IPv4 address on a nat or overlay network" in adapter.port_conflicts([bare])[bare.id]
