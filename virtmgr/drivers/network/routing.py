"""The inet-family table: isolation, what guests may ask of the host, NAT and published ports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network

from virtmgr.domain.sync import DesiredNetwork
from virtmgr.drivers.network import nft
from virtmgr.drivers.network.nft import ACCEPT, DROP, MASQUERADE, ct, match, meta, payload
from virtmgr.drivers.network.publications import Publication

VXLAN_PORT = 4789  # IANA's
_RAW, _DNAT, _FILTER, _SNAT = -300, -100, 0, 100  # standard priorities (nft(8))
_IPV4 = match(meta("nfproto"), "ipv4")
_IPV6 = match(meta("nfproto"), "ipv6")
_FROM_GUESTS = match(meta("iifname"), "@bridges")
_TO_GUESTS = match(meta("oifname"), "@bridges")
_KNOWN = match(ct("state"), nft.one_of("established", "related"), "in")
_PUBLISHED = match(ct("status"), "dnat", "in")
_LOOPBACK = nft.prefix("127.0.0.0", 8)
_PROTOCOL_PORT = (meta("l4proto"), payload("th", "dport"))


def routing_table(
    name: str, networks: Iterable[DesiredNetwork], publications: Sequence[Publication]
) -> nft.Table:
    """The table ``inet NAME`` for the networks among these that the host is the gateway of."""
    ours = sorted((each for each in networks if each.is_routed), key=lambda each: each.bridge)
    table = nft.Table("inet", name)
    table.set("bridges", ("ifname",), (each.bridge for each in ours))
    _publication_maps(table, publications)
    # Loopback addresses are routable on the bridges (for ports published on them), not to guests.
    table.base_chain(
        "raw",
        "filter",
        "prerouting",
        _RAW,
        (_FROM_GUESTS, match(payload("ip", "daddr"), _LOOPBACK), DROP),
    )
    table.base_chain("input", "filter", "input", _FILTER, (_FROM_GUESTS, nft.goto("host")))
    table.chain("host", *_host_rules())
    table.base_chain("forward", "filter", "forward", _FILTER, *_forward_rules(ours))
    exact, every = _publication_rules()
    table.base_chain("prerouting", "nat", "prerouting", _DNAT, *exact, *every)
    loopback = [[_lookup(payload("ip", "daddr"), "loopback")]]
    table.base_chain("output", "nat", "output", _DNAT, *loopback, *exact, *every)
    table.base_chain("postrouting", "nat", "postrouting", _SNAT, *_masquerades(ours))
    return table


def _host_rules() -> list[list[nft.Json]]:
    """Guests may ask the host for DHCP, for DNS at their own gateway's address, and ping it."""
    at_gateway = match({"fib": {"result": "type", "flags": ["daddr", "iif"]}}, "local")
    return [
        [_KNOWN, ACCEPT],
        [match(meta("l4proto"), nft.one_of("icmp", "ipv6-icmp")), ACCEPT],
        [match(payload("udp", "dport"), nft.one_of(67, 547)), ACCEPT],
        [match(payload("udp", "dport"), 53), at_gateway, ACCEPT],
        [match(payload("tcp", "dport"), 53), at_gateway, ACCEPT],
        [DROP],
    ]


def _forward_rules(networks: Sequence[DesiredNetwork]) -> list[list[nft.Json]]:
    """Within one network all passes; into it only answers and published ports; out of it all but
    VXLAN: its host would make it look as if another host had sent it."""
    within = [
        [match(meta("iifname"), each.bridge), match(meta("oifname"), each.bridge), ACCEPT]
        for each in networks
    ]
    return [
        *within,
        [_FROM_GUESTS, match(payload("udp", "dport"), VXLAN_PORT), DROP],
        [_TO_GUESTS, _KNOWN, ACCEPT],
        [_TO_GUESTS, _PUBLISHED, ACCEPT],
        [_TO_GUESTS, DROP],
    ]


def _masquerades(networks: Sequence[DesiredNetwork]) -> list[list[nft.Json]]:
    """Hide guests behind the host; also where the answer would not come back through it.

    That is so for a guest that reaches another of its own network through a published port, and
    for the host's loopback addresses.
    """
    rules = [[_TO_GUESTS, match(payload("ip", "saddr"), _LOOPBACK), MASQUERADE]]
    for network in networks:
        for protocol, cidr in (("ip", network.ipv4), ("ip6", network.ipv6)):
            if cidr is None:
                continue
            subnet = ip_network(cidr, strict=False)
            inside = match(
                payload(protocol, "saddr"),
                nft.prefix(str(subnet.network_address), subnet.prefixlen),
            )
            outward = match(meta("oifname"), nft.one_of(network.bridge, "lo"), "!=")
            rules.append([inside, match(meta("oifname"), network.bridge), _PUBLISHED, MASQUERADE])
            rules.append([inside, outward, MASQUERADE])
    return rules


def _publication_rules() -> tuple[list[list[nft.Json]], list[list[nft.Json]]]:
    """Look-ups for ports on one address of the host's, and for those on every one."""
    local = match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    not_loopback = match(payload("ip6", "daddr"), "::1", "!=")
    exact = [
        [_lookup(payload("ip", "daddr"), "exact4")],
        [_lookup(payload("ip6", "daddr"), "exact6")],
    ]
    every = [
        [_IPV4, local, nft.verdict_map(nft.concat(*_PROTOCOL_PORT), "@any4")],
        [_IPV6, not_loopback, local, nft.verdict_map(nft.concat(*_PROTOCOL_PORT), "@any6")],
    ]
    return exact, every


def _lookup(address: nft.Json, name: str) -> nft.Json:
    return nft.verdict_map(nft.concat(address, *_PROTOCOL_PORT), f"@{name}")


def _publication_maps(table: nft.Table, publications: Sequence[Publication]) -> None:
    """A look-up by address and port leads to a chain that rewrites the destination."""
    maps: dict[str, list[tuple[nft.Json, nft.Json]]] = {
        name: [] for name in ("loopback", "exact4", "exact6", "any4", "any6")
    }
    targets: dict[str, Publication] = {}
    for each in sorted(publications, key=lambda one: one.key):
        chain = f"to_{each.target.replace(':', '_')}_{each.target_port}"
        targets[chain] = each
        name = _map_of(each.address)
        address = () if name.startswith("any") else (each.address,)
        key = nft.concat(*address, each.protocol, each.port)
        maps[name].append((key, nft.goto(chain)))
    for name, elements in maps.items():
        table.map(name, _MAP_TYPES[name], elements)
    for chain, each in sorted(targets.items()):
        family = "ip6" if ":" in each.target else "ip"
        protocols = match(meta("l4proto"), nft.one_of("tcp", "udp"))
        rewrite = {"dnat": {"family": family, "addr": each.target, "port": each.target_port}}
        table.chain(chain, (protocols, rewrite))


_MAP_TYPES = {
    "loopback": ("ipv4_addr", "inet_proto", "inet_service"),
    "exact4": ("ipv4_addr", "inet_proto", "inet_service"),
    "exact6": ("ipv6_addr", "inet_proto", "inet_service"),
    "any4": ("inet_proto", "inet_service"),
    "any6": ("inet_proto", "inet_service"),
}


def _map_of(text: str) -> str:
    address = ip_address(text)
    if address.version == 4 and address.is_loopback:
        return "loopback"
    return f"{'any' if address.is_unspecified else 'exact'}{address.version}"
