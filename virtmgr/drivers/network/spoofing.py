"""The bridge-family table: a NIC may only speak as itself.

Frames are judged as they enter a bridge from a port of virtmgr's. A port that no workload has is
silent, so a NIC that appears before its rules do can harm nobody. What comes through the tunnel of
an overlay is judged alike: it must be from a NIC that is known to be on another host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address

from virtmgr.domain.network import mac_address, port_name, tunnel_name
from virtmgr.domain.sync import DesiredNetwork, DesiredNic, DesiredWorkload, NetworkName
from virtmgr.drivers.network import nft
from virtmgr.drivers.network.nft import ACCEPT, DROP, RETURN, match, meta, payload

PORTS = tuple(name("0")[:3] + "*" for name in (port_name, tunnel_name))
"""Device names of all NICs, and of all tunnels, as nftables' wildcards."""

_FIRST = -300  # before anything else looks at a frame
_DEVICE_MAC = nft.concat(meta("iifname"), payload("ether", "saddr"))
_ARP_MAC = nft.concat(meta("iifname"), payload("arp", "saddr ether"))
_ICMPV6_TYPE = payload("icmpv6", "type")
_UDP = match(meta("l4proto"), "udp")
_ICMPV6 = match(meta("l4proto"), "ipv6-icmp")
_ND_TARGET = nft.raw_payload("th", 64, 128)  # RFC 4861 §4.3, §4.4


@dataclass(frozen=True)
class Sender:
    """What one port may send as. None of a family with ``any`` set: that of its own choice."""

    device: str
    mac: str
    ipv4: str | None
    ipv6: str | None
    any4: bool
    any6: bool

    @property
    def own6(self) -> tuple[str, ...]:
        """Its IPv6 addresses, the link-local one that derives from its MAC included."""
        local = link_local(self.mac)
        return (self.ipv6, local) if self.ipv6 else (local,)


def link_local(mac: str) -> str:
    """The link-local address with the modified EUI-64 of ``mac`` (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return str(IPv6Address(bytes((0xFE, 0x80, *bytes(6))) + identifier))


def senders(
    networks: Iterable[DesiredNetwork], workloads: Iterable[DesiredWorkload]
) -> tuple[Sender, ...]:
    """Every NIC's rights. On a host's own bridge, where no address is known, all are allowed.

    NICs on other hosts send from the tunnel's device.
    """
    known = {network.id: network for network in networks}
    found: list[Sender | None] = [
        _sender(nic, known[nic.network_id])
        for workload in workloads
        for nic in workload.nics
        if nic.network_id in known
    ]
    found += [_remote(name, network) for network in known.values() for name in network.names]
    return tuple(sorted(filter(None, found), key=lambda each: (each.device, each.mac)))


def _sender(nic: DesiredNic, network: DesiredNetwork) -> Sender:
    foreign = not network.is_routed  # others may give addresses there
    return Sender(
        device=port_name(nic.id),
        mac=nic.mac.lower(),
        ipv4=nic.ipv4.split("/")[0] if nic.ipv4 else None,
        ipv6=nic.ipv6.split("/")[0] if nic.ipv6 else None,
        any4=foreign and nic.ipv4 is None,
        any6=foreign and nic.ipv6 is None,
    )


def _remote(name: NetworkName, network: DesiredNetwork) -> Sender | None:
    if name.tunnel is None:
        return None
    device = tunnel_name(network.id)
    return Sender(device, name.mac.lower(), name.ipv4, name.ipv6, any4=False, any6=False)


def spoofing_table(
    name: str, networks: Iterable[DesiredNetwork], workloads: Iterable[DesiredWorkload]
) -> nft.Table:
    """The table ``bridge NAME`` for these NICs."""
    networks = tuple(networks)
    allowed = senders(networks, workloads)
    gateways = [link_local(mac_address(network.id)) for network in networks]
    table = nft.Table("bridge", name)
    _sets(table, allowed, gateways)
    table.base_chain(
        "prerouting",
        "filter",
        "prerouting",
        _FIRST,
        *((match(meta("iifname"), names), nft.goto("port")) for names in PORTS),
    )
    table.chain(
        "port",
        (match(_DEVICE_MAC, "@macs", "!="), DROP),
        (nft.verdict_map(payload("ether", "type"), nft.one_of(*_BY_TYPE)),),
        (DROP,),
    )
    table.chain("arp", *_arp_rules())
    table.chain("ip4", *_ip4_rules())
    table.chain("ip6", *_ip6_rules())
    _neighbour_chains(table, allowed, gateways)
    return table


_BY_TYPE = [["arp", nft.goto("arp")], ["ip", nft.goto("ip4")], ["ip6", nft.goto("ip6")]]


def _sets(table: nft.Table, allowed: Iterable[Sender], gateways: Iterable[str]) -> None:
    allowed = tuple(allowed)
    table.set(
        "macs", ("ifname", "ether_addr"), (nft.concat(each.device, each.mac) for each in allowed)
    )
    table.set(
        "sources4",
        ("ifname", "ether_addr", "ipv4_addr"),
        (nft.concat(each.device, each.mac, each.ipv4) for each in allowed if each.ipv4),
    )
    table.set(
        "sources6",
        ("ifname", "ipv6_addr"),
        (nft.concat(each.device, address) for each in allowed for address in each.own6),
    )
    table.set("any4", ("ifname",), (each.device for each in allowed if each.any4))
    table.set("any6", ("ifname",), (each.device for each in allowed if each.any6))
    table.set("reserved6", ("ipv6_addr",), _reserved(allowed, gateways))


def _reserved(allowed: Iterable[Sender], gateways: Iterable[str]) -> list[str]:
    """Link-local addresses that belong to somebody."""
    return sorted({link_local(each.mac) for each in allowed} | set(gateways))


def _arp_rules() -> list[list[nft.Json]]:
    sender = nft.concat(meta("iifname"), payload("arp", "saddr ether"), payload("arp", "saddr ip"))
    probe = match(payload("arp", "saddr ip"), "0.0.0.0")  # RFC 5227 §1.1
    own_mac = match(_ARP_MAC, "@macs")
    return [
        [match(sender, "@sources4"), ACCEPT],
        [probe, own_mac, ACCEPT],
        [match(meta("iifname"), "@any4"), own_mac, ACCEPT],
        [DROP],
    ]


def _ip4_rules() -> list[list[nft.Json]]:
    sender = nft.concat(meta("iifname"), payload("ether", "saddr"), payload("ip", "saddr"))
    asks_dhcp = [match(payload("udp", "sport"), 68), match(payload("udp", "dport"), 67)]
    return [
        [_UDP, match(payload("udp", "sport"), 67), DROP],  # answers of a DHCP server
        [match(sender, "@sources4"), ACCEPT],
        [match(payload("ip", "saddr"), "0.0.0.0"), *asks_dhcp, ACCEPT],
        [match(meta("iifname"), "@any4"), ACCEPT],
        [DROP],
    ]


def _ip6_rules() -> list[list[nft.Json]]:
    """Link-local addresses that nobody owns are allowed: some guests make theirs at random
    (RFC 7217), which the MAC does not tell."""
    source = payload("ip6", "saddr")
    unspecified = match(source, "::")
    routers = nft.one_of("nd-router-advert", "nd-redirect")
    before_address = nft.one_of(  # RFC 4862 §5.4, RFC 3810 §5.2.13
        "nd-router-solicit",
        "nd-neighbor-solicit",
        "mld-listener-report",
        "mld-listener-done",
        "mld2-listener-report",
    )
    return [
        [_UDP, match(payload("udp", "sport"), 547), DROP],  # answers of a DHCPv6 server
        [_ICMPV6, match(_ICMPV6_TYPE, routers), DROP],
        [_ICMPV6, match(_ICMPV6_TYPE, "nd-neighbor-advert"), nft.jump("claim")],
        [_ICMPV6, unspecified, match(_ICMPV6_TYPE, "nd-neighbor-solicit"), nft.jump("claim")],
        [match(nft.concat(meta("iifname"), source), "@sources6"), ACCEPT],
        [match(source, "@reserved6"), DROP],
        [match(source, nft.prefix("fe80::", 10)), ACCEPT],
        [_ICMPV6, unspecified, match(_ICMPV6_TYPE, before_address), ACCEPT],
        [match(meta("iifname"), "@any6"), ACCEPT],
        [DROP],
    ]


def _neighbour_chains(table: nft.Table, allowed: Iterable[Sender], gateways: Iterable[str]) -> None:
    """Who says "this address is mine" (RFC 4861) must own it. They return, or drop the frame.

    The target is compared as bits, since nft 1.0 has no name for it; hence a chain per port
    instead of one set of device and address.
    """
    allowed = tuple(allowed)
    own6: dict[str, list[str]] = {}
    for each in allowed:
        own6.setdefault(each.device, []).extend(each.own6)
    table.map("claims", ("ifname",), ((name, nft.goto(f"claim_{name}")) for name in own6))
    table.chain("claim", (nft.verdict_map(meta("iifname"), "@claims"),), (DROP,))
    for name, addresses in own6.items():
        own = match(_ND_TARGET, nft.one_of(*(_bits(address) for address in addresses)))
        table.chain(f"claim_{name}", (own, RETURN), (nft.goto("claim_unowned"),))
    reserved = [_bits(address) for address in _reserved(allowed, gateways)]
    table.chain(
        "claim_unowned",
        *([[match(_ND_TARGET, nft.one_of(*reserved)), DROP]] if reserved else []),
        [match(nft.raw_payload("th", 64, 10), 0xFE80 >> 6), RETURN],
        [match(meta("iifname"), "@any6"), RETURN],
        [DROP],
    )


def _bits(address: str) -> str:
    return f"{int(IPv6Address(address)):#034x}"
