"""Overlays on real VXLAN: network namespaces are hosts, a bridge between them the underlay."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from tests.drivers.network.world import (
    TABLE,
    Guest,
    closing_all,
    eventually,
    nat_network,
    nic_on,
    plain,
    run,
    workload,
)
from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import NetworkType, mac_address, tunnel_name
from virtmgr.domain.sync import DesiredNetwork, DesiredNic, DesiredWorkload, NetworkName
from virtmgr.drivers.network.adapter import LinuxNetwork

pytestmark = pytest.mark.host

VNI = 7001
OUTSIDE = "198.51.100.9"
_VXLAN = 4789
_UDP_PAYLOAD = 14 + 20 + 8  # in a frame of the underlay
_BROADCAST = b"\xff" * 6


class Host:
    """A network namespace with an uplink to the underlay, and virtmgr's adapter in it."""

    def __init__(self, number: int, directory: Path) -> None:
        self.address = f"192.0.2.{number}"
        self.uplink = f"up{number}"  # the underlay's end
        self.space = Guest()
        self.guests: list[Guest] = []
        run("ip", "link", "add", self.uplink, "type", "veth",
            "peer", "name", "eth0", "netns", str(self.space.pid))  # fmt: skip
        run("ip", "link", "set", self.uplink, "master", "underlay", "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", "192.0.2.254"),
        ):
            assert self.space.run("ip", *command).returncode == 0
        resolv = directory / f"resolv{number}"
        resolv.write_text("")
        self.adapter = LinuxNetwork(
            run_directory=directory / f"network{number}", table=TABLE, resolv_file=resolv
        )
        self.inside(self.adapter.recover)

    def inside(self, work: Callable[[], None]) -> None:
        self.space.inside(work)

    def connect(self, nic: DesiredNic) -> Guest:
        guest = Guest()
        self.guests.append(guest)
        self.inside(lambda: self.adapter.connect(nic, guest.pid))
        return guest

    def close(self) -> None:
        try:
            self.inside(self.adapter.remove_all)
            left = self.space.run("ip", "-br", "link").stdout
            assert "vm" not in left, left
        finally:
            for each in (*self.guests, self.space):
                each.close()


@dataclass(frozen=True)
class Overlay:
    """The overlay ``far`` and who is where, as the inventory would tell the hosts."""

    network: DesiredNetwork
    hosts: tuple[Host, ...]
    members: dict[str, tuple[DesiredWorkload, int]]  # by name, with the place of its host

    def ensure(self) -> None:
        for place, host in enumerate(self.hosts):
            network = self.seen_from(place)
            workloads = [each for each, where in self.members.values() if where == place]
            host.inside(partial(host.adapter.ensure, [network], workloads))

    def seen_from(self, place: int) -> DesiredNetwork:
        names = tuple(
            NetworkName(
                name=name,
                mac=each.nics[0].mac,
                ipv4=plain(each.nics[0].ipv4),
                ipv6=plain(each.nics[0].ipv6),
                tunnel=None if where == place else self.hosts[where].address,
            )
            for name, (each, where) in self.members.items()
        )
        return self.network.model_copy(update={"names": names, "tunnel": self.hosts[place].address})

    def connect(self, name: str) -> Guest:
        each, where = self.members[name]
        return self.hosts[where].connect(each.nics[0])

    def nic(self, name: str) -> DesiredNic:
        return self.members[name][0].nics[0]


@pytest.fixture
def hosts(host: None, tmp_path: Path) -> Iterator[tuple[Host, ...]]:  # noqa: ARG001  set up first
    for command in (
        "link add underlay type bridge mcast_snooping 0",
        "addr add 192.0.2.254/24 dev underlay",
        f"addr add {OUTSIDE}/32 dev underlay",
        "link set underlay up",
    ):
        assert run("ip", *command.split()).returncode == 0
    made: list[Host] = []
    try:
        for number in (1, 2, 3):
            made.append(Host(number, tmp_path))
        yield tuple(made)
    finally:
        for each in made:
            each.close()


@pytest.fixture
def overlay(hosts: tuple[Host, ...]) -> Overlay:
    """``one`` on the first host, ``two`` on the second, ``three`` on the third."""
    network = nat_network("far", 75).model_copy(
        update={"type": NetworkType.OVERLAY, "vni": VNI, "mtu": 1450}
    )
    members = {
        name: (workload(name, nic_on(network, place + 2)), place)
        for place, name in enumerate(("one", "two", "three"))
    }
    made = Overlay(network, hosts, members)
    made.ensure()
    return made


def test_members_reach_each_other_the_gateway_and_the_outside(overlay: Overlay) -> None:
    one, two = overlay.connect("one"), overlay.connect("two")
    for guest, address in ((one, "10.75.0.3"), (two, "10.75.0.2")):
        assert_reaches(guest, address)
    for address in ("fd00:75::3", "10.75.0.1", "fd00:75::1", OUTSIDE):
        assert_reaches(one, address)
    for server in ("10.75.0.1", "fd00:75::1"):
        answer = one.run("dig", "+short", "+time=2", f"@{server}", "two.far.virt", "A").stdout
        assert answer.strip() == "10.75.0.3"


def test_every_host_is_the_same_gateway_and_only_for_its_own(overlay: Overlay) -> None:
    one, two = overlay.connect("one"), overlay.connect("two")
    with watching(overlay.hosts[0]) as frames:
        for guest in (one, two):
            assert_reaches(guest, "10.75.0.1")
            shown = guest.run("ip", "neigh", "show", "10.75.0.1").stdout
            assert mac_address(overlay.network.id) in shown
    assert frames == []


def test_whole_packets_pass_and_larger_ones_are_refused_beforehand(overlay: Overlay) -> None:
    one, _ = overlay.connect("one"), overlay.connect("two")
    largest = 1450 - 20 - 8
    whole = ("ping", "-Mdo", "-c1", "-W1", f"-s{largest}", "10.75.0.3")
    eventually(lambda: one.run(*whole).returncode == 0)
    wide = overlay.network.model_copy(
        update={"mtu": 1451, "tunnel": overlay.hosts[0].address, "names": ()}
    )
    with pytest.raises(NetworkError, match="carries 1450") as refused:
        overlay.hosts[0].inside(lambda: overlay.hosts[0].adapter.ensure([wide], []))
    assert refused.value.code == "mtu_too_large"


@pytest.mark.parametrize("tunnel", [None, "192.0.2.77"])
def test_a_host_without_its_tunnel_address_says_so(overlay: Overlay, tunnel: str | None) -> None:
    host = overlay.hosts[0]
    network = overlay.network.model_copy(update={"tunnel": tunnel})
    with pytest.raises(NetworkError, match="tunnel address") as refused:
        host.inside(lambda: host.adapter.ensure([network], []))
    assert refused.value.code == "no_tunnel"


def test_a_host_of_the_other_ip_version_is_told_and_hinders_no_other(overlay: Overlay) -> None:
    host = overlay.hosts[0]
    stranger = NetworkName(name="six", mac="52:00:00:00:00:06", ipv4="10.75.0.9", tunnel="fd00::6")
    seen = overlay.seen_from(0)
    network = seen.model_copy(update={"names": (*seen.names, stranger)})
    with pytest.raises(NetworkError, match="'six' is on a host with the tunnel address fd00::6"):
        host.inside(lambda: host.adapter.ensure([network], [overlay.members["one"][0]]))
    one, _ = overlay.connect("one"), overlay.connect("two")
    assert_reaches(one, "10.75.0.3")


def test_nothing_is_flooded(overlay: Overlay) -> None:
    one, _ = overlay.connect("one"), overlay.connect("two")
    mac, ip = _octets(overlay.nic("one").mac), socket.inet_aton("10.75.0.2")
    unknown = b"\x52\x00\x00\x00\x00\x99"
    raw = one.packet_socket()
    with closing_all(raw), watching(overlay.hosts[0]) as frames:
        for target in (
            _BROADCAST,
            b"\x01\x00\x5e\x00\x00\x05",
            b"\x33\x33\x00\x00\x00\x01",
            unknown,
        ):
            raw.send(_ipv4(mac, target, ip, socket.inet_aton("10.75.0.99")))
        raw.send(_arp(mac, ip, socket.inet_aton("10.75.0.99")))
        assert not one.pings("10.75.0.98")
        assert not one.pings("fd00:75::98")
        assert_reaches(one, "10.75.0.3")
    inner = {frame[:6] for frame in frames}
    assert inner == {_octets(overlay.nic("two").mac), mac}


def test_a_member_that_moves_keeps_its_connections(overlay: Overlay) -> None:
    three, _ = overlay.connect("three"), overlay.connect("two")
    assert_reaches(three, "10.75.0.3")
    two = overlay.members["two"][0]
    moved = replace(overlay, members={**overlay.members, "two": (two, 0)})
    old, new = overlay.hosts[1], overlay.hosts[0]
    old.inside(lambda: old.adapter.remove_port(two.nics[0].id))
    moved.ensure()
    there = moved.connect("two")
    assert_reaches(three, "10.75.0.3")
    assert_reaches(there, "10.75.0.4")
    assert_reaches(there, "10.75.0.1")
    assert (
        new.space.run("bridge", "fdb", "show", "dev", _tunnel(overlay)).stdout.count(
            two.nics[0].mac
        )
        == 0
    )


def test_members_that_are_gone_are_forgotten(overlay: Overlay) -> None:
    host, name = overlay.hosts[0], _tunnel(overlay)

    def known() -> set[str]:
        fdb = host.space.run("bridge", "fdb", "show", "dev", name).stdout
        neighbours = host.space.run("ip", "neigh", "show", "nud", "permanent").stdout
        macs = [overlay.nic(who).mac for who in ("two", "three")]
        return {line for line in (fdb + neighbours).splitlines() if any(m in line for m in macs)}

    before = known()
    assert len(before) == 2 * (2 + 3)  # two tables of the device; IPv4, IPv6 and link-local
    gone = replace(overlay, members={k: v for k, v in overlay.members.items() if k != "three"})
    gone.ensure()
    two = overlay.nic("two").mac
    assert known() == {line for line in before if two in line}


def test_the_next_agent_takes_the_tunnel_over(overlay: Overlay, tmp_path: Path) -> None:
    one, _ = overlay.connect("one"), overlay.connect("two")
    host = overlay.hosts[0]
    before = host.space.run("ip", "-o", "link", "show", _tunnel(overlay)).stdout
    again = LinuxNetwork(
        run_directory=tmp_path / "network1", table=TABLE, resolv_file=tmp_path / "resolv1"
    )
    host.inside(again.recover)
    host.inside(lambda: again.ensure([overlay.seen_from(0)], [overlay.members["one"][0]]))
    assert host.space.run("ip", "-o", "link", "show", _tunnel(overlay)).stdout == before
    assert_reaches(one, "10.75.0.3")
    host.inside(lambda: again.ensure([], []))
    assert "vm" not in host.space.run("ip", "-br", "link", "show", "type", "vxlan").stdout


def test_a_tunnel_from_another_address_is_made_anew(overlay: Overlay) -> None:
    one, _ = overlay.connect("one"), overlay.connect("two")
    host = overlay.hosts[0]
    assert host.space.run("ip", "addr", "add", "192.0.2.11/24", "dev", "eth0").returncode == 0
    host.address = "192.0.2.11"
    overlay.ensure()
    with watching(host) as frames:
        assert_reaches(one, "10.75.0.3")
    assert frames


def test_tunnels_may_run_over_ipv6(overlay: Overlay) -> None:
    for number, host in enumerate(overlay.hosts, 1):
        host.address = f"2001:db8::{number}"
        add = ("ip", "addr", "add", f"{host.address}/64", "dev", "eth0", "nodad")
        assert host.space.run(*add).returncode == 0
    narrow = replace(overlay, network=overlay.network.model_copy(update={"mtu": 1430}))
    narrow.ensure()
    one, _ = narrow.connect("one"), narrow.connect("two")
    for address in ("10.75.0.3", "fd00:75::3", "10.75.0.1"):
        assert_reaches(one, address)
    index = overlay.hosts[0].space.run("ip", "-o", "link", "show", _tunnel(overlay)).stdout
    overlay.hosts[0].inside(overlay.hosts[0].adapter.recover)
    narrow.ensure()
    assert overlay.hosts[0].space.run("ip", "-o", "link", "show", _tunnel(overlay)).stdout == index


def test_what_nobody_could_have_sent_is_dropped(overlay: Overlay) -> None:
    one, _ = overlay.connect("one"), overlay.connect("two")
    nic, two = overlay.nic("one"), overlay.nic("two")
    target, inside = _octets(nic.mac), one.packet_socket()
    mac, mine = _octets(two.mac), socket.inet_aton("10.75.0.3")
    theirs = socket.inet_aton("10.75.0.2")
    stranger = b"\x52\x00\x00\x00\x00\x99"
    true = _ipv4(mac, target, mine, theirs)
    forged = [
        _ipv4(stranger, target, mine, theirs),  # a MAC that is nowhere
        _ipv4(mac, target, socket.inet_aton("10.75.0.4"), theirs),  # another member's address
        _ipv4(target, target, theirs, theirs),  # one that is on this host
        _arp(mac, socket.inet_aton("10.75.0.1"), theirs, target),  # the gateway's address
    ]
    with closing_all(inside):
        for frame in (*forged, true):
            _send_through_tunnel(overlay.hosts[0].address, frame)
        eventually(lambda: true in _received(inside))
    with closing_all(again := one.packet_socket()):
        for frame in forged:
            _send_through_tunnel(overlay.hosts[0].address, frame)
        assert not set(forged) & set(_received(again))


def test_guests_cannot_speak_as_their_host_to_other_hosts(overlay: Overlay) -> None:
    one, other = overlay.connect("one"), overlay.hosts[1]
    for port, passes in ((_VXLAN, False), (_VXLAN + 1, True)):
        with watching(other, port) as frames:
            one.inside(partial(_send_through_tunnel, other.address, b"x" * 60, port))
        assert bool(frames) is passes


# ---- helpers


def assert_reaches(guest: Guest, address: str) -> None:
    """A ping comes back; the first one may be lost on a machine that is busy."""
    eventually(lambda: guest.pings(address))


def _tunnel(overlay: Overlay) -> str:
    return tunnel_name(overlay.network.id)


@contextmanager
def watching(host: Host, port: int = _VXLAN) -> Iterator[list[bytes]]:
    """What UDP datagrams to ``port`` carry over a host's uplink meanwhile: of VXLAN, the frames."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((host.uplink, 3))
    raw.settimeout(0.3)
    frames: list[bytes] = []
    with closing_all(raw):
        yield frames
        for frame in _received(raw):
            is_udp = frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP
            if is_udp and struct.unpack_from("!H", frame, 36)[0] == port:
                frames.append(frame[_UDP_PAYLOAD + 8 :])


def _received(raw: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(raw.recv(2048))
        except TimeoutError:
            return found


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _send_through_tunnel(address: str, frame: bytes, port: int = _VXLAN) -> None:
    """As a program on the underlay could, from whatever namespace this is called in."""
    header = struct.pack("!II", 0x08000000, VNI << 8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(header + frame, (address, port))


def _ipv4(source: bytes, target: bytes, sender: bytes, receiver: bytes) -> bytes:
    """A UDP packet to port 9."""
    udp = struct.pack("!HHHH", 9, 9, 8 + 18, 0) + b"virtmgr overlay..."
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + sender + receiver
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return target + source + b"\x08\x00" + head[:10] + struct.pack("!H", checksum) + head[12:] + udp


def _arp(source: bytes, sender: bytes, asked: bytes, target: bytes = _BROADCAST) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    body = source + sender + bytes(6) + asked
    return (target + source + b"\x08\x06" + head + body).ljust(60, b"\0")
