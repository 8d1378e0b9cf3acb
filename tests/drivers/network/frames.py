"""Ethernet frames by hand, to send what no honest kernel would."""

from __future__ import annotations

import ipaddress
import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
ETH_ALL, ETH_ARP, ETH_IPV4, ETH_IPV6 = 0x0003, 0x0806, 0x0800, 0x86DD


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ip_bytes(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def ethernet(source: str, kind: int, payload: bytes) -> bytes:
    """A broadcast frame."""
    return mac_bytes(BROADCAST) + mac_bytes(source) + struct.pack("!H", kind) + payload


def arp(source: str, mac: str, address: str) -> bytes:
    """An ARP reply (RFC 826) from ``source`` that says that ``address`` is at ``mac``."""
    header = struct.pack("!HHBBH", 1, ETH_IPV4, 6, 4, 2)
    sender = mac_bytes(mac) + ip_bytes(address)
    target = mac_bytes(BROADCAST) + ip_bytes(address)
    return ethernet(source, ETH_ARP, header + sender + target)


def checksum(content: bytes) -> int:
    """RFC 1071."""
    padded = content + b"\0" * (len(content) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp4(mac: str, source: str, sport: int, dport: int, text: bytes) -> bytes:
    """A UDP datagram over IPv4 to everybody."""
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(text), 0) + text
    rest = struct.pack("!BBH", 64, socket.IPPROTO_UDP, 0)
    first = struct.pack("!BBHHH", 0x45, 0, 20 + len(datagram), 0, 0)
    addresses = ip_bytes(source) + ip_bytes("255.255.255.255")
    sum_ = struct.pack("!H", checksum(first + rest + addresses))
    return ethernet(mac, ETH_IPV4, first + rest[:2] + sum_ + addresses + datagram)


def ipv6(mac: str, source: str, protocol: int, payload: bytes, target: str = "ff02::1") -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
    return ethernet(mac, ETH_IPV6, header + ip_bytes(source) + ip_bytes(target) + payload)


def udp6(mac: str, source: str, sport: int, text: bytes) -> bytes:
    datagram = struct.pack("!HHHH", sport, 546, 8 + len(text), 0) + text
    return ipv6(mac, source, socket.IPPROTO_UDP, datagram)


def icmp6(mac: str, source: str, kind: int, body: bytes) -> bytes:
    """An ICMPv6 message (RFC 4443) to all nodes."""
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = ip_bytes(source) + ip_bytes("ff02::1") + struct.pack("!II", len(message), 58)
    sum_ = struct.pack("!H", checksum(pseudo + message))
    return ipv6(mac, source, socket.IPPROTO_ICMPV6, message[:2] + sum_ + message[4:])


def router_advertisement(mac: str, source: str) -> bytes:
    return icmp6(mac, source, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0))


def neighbour_advertisement(mac: str, source: str, target: str) -> bytes:
    """Says that ``target`` is at ``mac``, overriding what is known."""
    option = b"\x02\x01" + mac_bytes(mac)
    return icmp6(mac, source, 136, struct.pack("!I", 0x20000000) + ip_bytes(target) + option)


def packet_socket() -> socket.socket:
    """Sends and receives whole frames on eth0."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
    found.bind(("eth0", ETH_ALL))
    found.settimeout(5)
    return found


def received_until(receiver: socket.socket, last: bytes) -> list[bytes]:
    """Frames that came in before ``last``."""
    found: list[bytes] = []
    while True:
        frame, address = receiver.recvfrom(65536)
        if frame == last:
            return found
        if address[2] != socket.PACKET_OUTGOING:
            found.append(frame)


def passes(sender: socket.socket, receiver: socket.socket, frame: bytes, honest: bytes) -> bool:
    """Whether ``frame`` arrives; ``honest``, which is sent after it, must."""
    sender.send(frame)
    sender.send(honest)
    return frame in received_until(receiver, honest)
