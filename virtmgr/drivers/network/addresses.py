"""Addresses that derive from others. Pure."""

from __future__ import annotations

import ipaddress


def bridge_mac(network_id: str) -> str:
    """The MAC of a network's bridge: the same on every host, so that workloads may move."""
    tail = network_id.replace("-", "")[-8:]
    return "52:fe:" + ":".join(tail[i : i + 2] for i in range(0, 8, 2))


def link_local(mac: str) -> str:
    """The IPv6 link-local address that Linux makes of a MAC (RFC 4291, appendix A)."""
    first, *rest = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((first ^ 0x02, *rest[:2], 0xFF, 0xFE, *rest[2:]))
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + identifier))
