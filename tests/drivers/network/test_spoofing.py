"""Raw frames from a guest that pretends to be another: none arrives."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.drivers.network.world import (
    Guest,
    closing_all,
    eventually,
    nat_network,
    nic_on,
    plain,
    workload,
)
from virtmgr.domain.network import mac_address
from virtmgr.drivers.network.adapter import LinuxNetwork
from virtmgr.drivers.network.spoofing import link_local

pytestmark = pytest.mark.host

BROADCAST = "ff:ff:ff:ff:ff:ff"
MARK = b"virtmgr-spoof-test"


@dataclass
class Wire:
    """Raw sockets of two guests, and what one needs to know to lie."""

    sender: socket.socket
    receiver: socket.socket
    mac: str
    ip: str
    ip6: str
    local: str
    victim_mac: str
    victim_ip: str
    victim_ip6: str
    victim_local: str
    gateway_local: str

    def passes(self, frame: bytes) -> bool:
        """Whether the other guest sees the frame."""
        self.sender.send(frame)
        while True:
            try:
                if self.receiver.recv(2048).rstrip(b"\0") == frame.rstrip(b"\0"):
                    return True
            except TimeoutError:
                return False


@pytest.fixture
def wire(adapter: LinuxNetwork, guest: Callable[[], Guest]) -> object:
    network = nat_network()
    nics = [nic_on(network, 2), nic_on(network, 3)]
    adapter.ensure([network], [workload("one", nics[0]), workload("two", nics[1])])
    guests = guest(), guest()
    for nic, made in zip(nics, guests, strict=True):
        adapter.connect(nic, made.pid)
    assert guests[0].reaches("10.71.0.3")
    ends = [made.packet_socket() for made in guests]
    with closing_all(*ends):
        yield Wire(
            sender=ends[0],
            receiver=ends[1],
            mac=nics[0].mac,
            ip=plain(nics[0].ipv4) or "",
            ip6=plain(nics[0].ipv6) or "",
            local=link_local(nics[0].mac),
            victim_mac=nics[1].mac,
            victim_ip=plain(nics[1].ipv4) or "",
            victim_ip6=plain(nics[1].ipv6) or "",
            victim_local=link_local(nics[1].mac),
            gateway_local=link_local(mac_address(network.id)),
        )


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ethernet(source: str, kind: int, body: bytes, destination: str = BROADCAST) -> bytes:
    return _mac(destination) + _mac(source) + struct.pack("!H", kind) + body


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ipv4(
    source: str, ports: tuple[int, int] = (1000, 2000), target: str = "255.255.255.255"
) -> bytes:
    udp = struct.pack("!HHHH", *ports, 8 + len(MARK), 0) + MARK
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + addresses
    return head[:10] + struct.pack("!H", _sum(head)) + head[12:] + udp


def _ipv6(source: str, next_header: int, body: bytes, target: str = "ff02::1") -> bytes:
    addresses = IPv6Address(source).packed + IPv6Address(target).packed
    return struct.pack("!IHBB", 6 << 28, len(body), next_header, 255) + addresses + body


def _udp6(ports: tuple[int, int] = (1000, 2000)) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(MARK), 0xABCD) + MARK


def _icmp6(source: str, kind: int, rest: bytes, target: str = "ff02::1") -> bytes:
    """With its true checksum: the kernel's bridge does not care, its receivers would."""
    body = struct.pack("!BBH", kind, 0, 0) + rest
    body += b"\0" * (len(body) % 2)
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed
    pseudo += struct.pack("!II", len(body), 58)
    return _ipv6(source, 58, body[:2] + struct.pack("!H", _sum(pseudo + body)) + body[4:], target)


def _advertisement(source: str, claimed: str) -> bytes:
    return _icmp6(source, 136, struct.pack("!I", 0x20000000) + IPv6Address(claimed).packed)


def _arp(sender_mac: str, sender_ip: str, target_ip: str = "10.71.0.3") -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    sender = _mac(sender_mac) + IPv4Address(sender_ip).packed
    return head + sender + bytes(6) + IPv4Address(target_ip).packed


def test_honest_frames_pass(wire: Wire) -> None:
    honest = {
        "IPv4": _ethernet(wire.mac, 0x0800, _ipv4(wire.ip)),
        "ARP": _ethernet(wire.mac, 0x0806, _arp(wire.mac, wire.ip)),
        "ARP probe": _ethernet(wire.mac, 0x0806, _arp(wire.mac, "0.0.0.0")),
        "DHCP question": _ethernet(wire.mac, 0x0800, _ipv4("0.0.0.0", (68, 67))),
        "IPv6": _ethernet(wire.mac, 0x86DD, _ipv6(wire.ip6, 17, _udp6())),
        "IPv6 link-local": _ethernet(wire.mac, 0x86DD, _ipv6(wire.local, 17, _udp6())),
        "IPv6 random link-local": _ethernet(wire.mac, 0x86DD, _ipv6("fe80::77", 17, _udp6())),
        "own advertisement": _ethernet(wire.mac, 0x86DD, _advertisement(wire.ip6, wire.ip6)),
        "random advertisement": _ethernet(wire.mac, 0x86DD, _advertisement("fe80::77", "fe80::77")),
    }
    assert {name: wire.passes(frame) for name, frame in honest.items()} == dict.fromkeys(
        honest, True
    )


def test_false_frames_do_not_pass(wire: Wire) -> None:
    fake = "52:66:66:66:66:66"
    router = _icmp6(wire.local, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0))
    redirect = _icmp6(
        wire.local, 137, bytes(4) + IPv6Address(wire.ip6).packed + IPv6Address("2001:db8::").packed
    )
    probe = _icmp6("::", 135, bytes(4) + IPv6Address(wire.victim_ip6).packed)
    false = {
        "MAC, IPv4": _ethernet(fake, 0x0800, _ipv4(wire.ip)),
        "MAC, ARP": _ethernet(fake, 0x0806, _arp(wire.mac, wire.ip)),
        "MAC, IPv6": _ethernet(fake, 0x86DD, _ipv6(wire.ip6, 17, _udp6())),
        "victim's MAC": _ethernet(wire.victim_mac, 0x0800, _ipv4(wire.victim_ip)),
        "gateway's IPv4": _ethernet(wire.mac, 0x0800, _ipv4("10.71.0.1")),
        "victim's IPv4": _ethernet(wire.mac, 0x0800, _ipv4(wire.victim_ip)),
        "no IPv4, no DHCP": _ethernet(wire.mac, 0x0800, _ipv4("0.0.0.0")),
        "DHCP answer": _ethernet(wire.mac, 0x0800, _ipv4(wire.ip, (67, 68))),
        "ARP for gateway": _ethernet(wire.mac, 0x0806, _arp(wire.mac, "10.71.0.1")),
        "ARP with another MAC": _ethernet(wire.mac, 0x0806, _arp(fake, wire.ip)),
        "victim's IPv6": _ethernet(wire.mac, 0x86DD, _ipv6(wire.victim_ip6, 17, _udp6())),
        "gateway's link-local": _ethernet(wire.mac, 0x86DD, _ipv6(wire.gateway_local, 17, _udp6())),
        "victim's link-local": _ethernet(wire.mac, 0x86DD, _ipv6(wire.victim_local, 17, _udp6())),
        "DHCPv6 answer": _ethernet(wire.mac, 0x86DD, _ipv6(wire.local, 17, _udp6((547, 546)))),
        "router advertisement": _ethernet(wire.mac, 0x86DD, router),
        "redirect": _ethernet(wire.mac, 0x86DD, redirect),
        "claims victim": _ethernet(wire.mac, 0x86DD, _advertisement(wire.ip6, wire.victim_ip6)),
        "claims gateway": _ethernet(wire.mac, 0x86DD, _advertisement(wire.ip6, "fd00:71::1")),
        "claims router": _ethernet(wire.mac, 0x86DD, _advertisement(wire.ip6, wire.gateway_local)),
        "contests victim": _ethernet(wire.mac, 0x86DD, probe),
        "another EtherType": _ethernet(wire.mac, 0x88B5, MARK),
        "VLAN tag": _ethernet(wire.mac, 0x8100, struct.pack("!HH", 5, 0x0800) + _ipv4("10.71.0.1")),
    }
    assert [name for name, frame in false.items() if wire.passes(frame)] == []


def test_a_port_that_no_workload_has_is_silent(
    adapter: LinuxNetwork, guest: Callable[[], Guest]
) -> None:
    network = nat_network()
    nic = nic_on(network, 2)
    adapter.ensure([network], [])
    made = guest()
    adapter.connect(nic, made.pid)
    assert not made.pings("10.71.0.1")
    adapter.ensure([network], [workload("known", nic)])
    eventually(lambda: made.pings("10.71.0.1"))  # it asks for the gateway's MAC once a second
