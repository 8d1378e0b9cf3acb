"""The whole firewall as one nftables transaction, from what is desired. Pure.

The form is that of ``nft -j`` (libnftables-json(5)). Two tables of virtmgr's own: ``inet`` routes,
translates and shields; ``bridge`` holds what each NIC may send.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from virtmgr.domain.network import NetworkType, port_name
from virtmgr.domain.sync import DesiredNetwork, DesiredNic, DesiredWorkload
from virtmgr.domain.workload import Port
from virtmgr.drivers.network.addresses import bridge_mac, link_local

Rule = list[dict[str, Any]]

_LOOPBACK = {"prefix": {"addr": "127.0.0.0", "len": 8}}


def ruleset(
    networks: Sequence[DesiredNetwork], workloads: Sequence[DesiredWorkload], table: str
) -> dict[str, Any]:
    """Commands that replace both tables at once."""
    own = [network for network in networks if network.type is NetworkType.NAT]
    commands: list[dict[str, Any]] = []
    for family in ("inet", "bridge"):
        name = {"family": family, "name": table}
        commands += [
            {"add": {"table": name}},
            {"delete": {"table": name}},
            {"add": {"table": name}},
        ]
    commands += _inet(table, own, workloads)
    commands += _bridge(table, workloads)
    return {"nftables": commands}


def removal(table: str) -> dict[str, Any]:
    """Commands that remove both tables, whether they are there or not."""
    commands: list[dict[str, Any]] = []
    for family in ("inet", "bridge"):
        name = {"family": family, "name": table}
        commands += [{"add": {"table": name}}, {"delete": {"table": name}}]
    return {"nftables": commands}


# ---- inet: routing, NAT, published ports


def _inet(
    table: str, networks: Sequence[DesiredNetwork], workloads: Sequence[DesiredWorkload]
) -> list[dict[str, Any]]:
    chains: dict[str, tuple[str, str, int, list[Rule]]] = {
        "prerouting": ("nat", "prerouting", -100, _published(workloads, loopback=False)),
        "output": ("nat", "output", -100, _published(workloads, loopback=True)),
        "postrouting": ("nat", "postrouting", 100, _masquerade(networks)),
        "forward": ("filter", "forward", 0, _forward(networks)),
        "input": ("filter", "input", 0, _input(networks)),
    }
    commands: list[dict[str, Any]] = []
    for name, (type, hook, priority, _) in chains.items():
        commands.append(_chain("inet", table, name, type, hook, priority))
    for name, (_, _, _, rules) in chains.items():
        commands += [_rule("inet", table, name, rule) for rule in rules]
    return commands


def _published(workloads: Iterable[DesiredWorkload], *, loopback: bool) -> list[Rule]:
    """Published ports, those on loopback addresses only where the host itself connects."""
    return [
        rule
        for workload in workloads
        for port in workload.spec.ports
        if loopback or not ipaddress.ip_address(port.address).is_loopback
        for nic in workload.nics[:1]
        for rule in _publish(port, nic)
    ]


def _publish(port: Port, nic: DesiredNic) -> list[Rule]:
    """To the first NIC; a wildcard address publishes on every address that is the host's."""
    address = ipaddress.ip_address(port.address)
    target = nic.ipv4 if address.version == 4 else nic.ipv6
    if target is None:
        return []
    family = "ip" if address.version == 4 else "ip6"
    local: Rule = [_match(_payload(family, "daddr"), port.address)]
    if address.is_unspecified:
        local = [
            _match({"meta": {"key": "nfproto"}}, "ipv4" if family == "ip" else "ipv6"),
            _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"),
        ]
    to = {"addr": target.partition("/")[0], "port": port.guest, "family": family}
    return [[*local, _match(_payload(port.protocol, "dport"), port.host), {"dnat": to}]]


def _masquerade(networks: Iterable[DesiredNetwork]) -> list[Rule]:
    rules: list[Rule] = []
    for network in networks:
        bridge = network.bridge
        # A connection from the host's loopback, or from the network to its own published port,
        # must come back through the host.
        rules.append(
            [_out(bridge), _match(_payload("ip", "saddr"), _LOOPBACK), {"masquerade": None}]
        )
        rules.append(
            [
                _in(bridge),
                _out(bridge),
                _match({"ct": {"key": "status"}}, "dnat", "in"),
                {"masquerade": None},
            ]
        )
        for cidr in (network.ipv4, network.ipv6):
            if cidr is not None:
                rules.append(
                    [
                        _match(_payload(_family(cidr), "saddr"), _prefix(cidr)),
                        _out(bridge, "!="),
                        {"masquerade": None},
                    ]
                )
    return rules


def _forward(networks: Sequence[DesiredNetwork]) -> list[Rule]:
    """Within a network all, out of it all, into it only answers and published ports."""
    bridges = [network.bridge for network in networks]
    if not bridges:
        return []
    every = {"set": sorted(bridges)}
    return [
        *([_in(bridge), _out(bridge), {"accept": None}] for bridge in bridges),
        [_out(every), _established(), {"accept": None}],
        [_out(every), _match({"ct": {"key": "status"}}, "dnat", "in"), {"accept": None}],
        [_out(every), {"drop": None}],
    ]


def _input(networks: Sequence[DesiredNetwork]) -> list[Rule]:
    """Workloads reach the host's DHCP and DNS, and may ping it; nothing else.

    Nor what listens on its loopback, which ``route_localnet`` would let them address.
    """
    if not networks:
        return []
    every = _in({"set": sorted(network.bridge for network in networks)})
    return [
        [every, _established(), {"accept": None}],
        [every, _match(_payload("ip", "daddr"), _LOOPBACK), {"drop": None}],
        [every, _match(_payload("udp", "dport"), {"set": [53, 67, 547]}), {"accept": None}],
        [every, _match(_payload("tcp", "dport"), 53), {"accept": None}],
        [
            every,
            _match({"meta": {"key": "l4proto"}}, {"set": ["icmp", "ipv6-icmp"]}),
            {"accept": None},
        ],
        [every, {"drop": None}],
    ]


# ---- bridge: what each NIC may send


def _bridge(table: str, workloads: Sequence[DesiredWorkload]) -> list[dict[str, Any]]:
    nics = [nic for workload in workloads for nic in workload.nics]
    commands = [_chain("bridge", table, "ports", "filter", "prerouting", -200)]
    for nic in nics:
        name = port_name(nic.id)
        commands.append({"add": {"chain": {"family": "bridge", "table": table, "name": name}}})
        commands += [_rule("bridge", table, name, rule) for rule in _sender(nic)]
    if nics:
        jumps = [[port_name(nic.id), {"jump": {"target": port_name(nic.id)}}] for nic in nics]
        key = {"meta": {"key": "iifname"}}
        commands.append(
            _rule("bridge", table, "ports", [{"vmap": {"key": key, "data": {"set": jumps}}}])
        )
    return commands


def _sender(nic: DesiredNic) -> list[Rule]:
    """Only from its own MAC and addresses; never as a router or a DHCP server."""
    rules: list[Rule] = [[_match(_payload("ether", "saddr"), nic.mac, "!="), {"drop": None}]]
    rules += _sender_ipv4(nic)
    rules += _sender_ipv6(nic)
    rules.append([{"drop": None}])
    return rules


def _sender_ipv4(nic: DesiredNic) -> list[Rule]:
    arp = _match({"meta": {"key": "protocol"}}, "arp")
    ip = _match({"meta": {"key": "protocol"}}, "ip")
    from_dhcp_client = _match(_payload("udp", "sport"), 68)
    rules: list[Rule] = [
        [arp, _match(_payload("arp", "saddr ether"), nic.mac, "!="), {"drop": None}],
        [ip, _match(_payload("udp", "sport"), 67), {"drop": None}],
        [
            ip,
            _match(_payload("ip", "saddr"), "0.0.0.0"),
            from_dhcp_client,
            _match(_payload("udp", "dport"), 67),
            {"accept": None},
        ],
    ]
    if nic.ipv4 is not None:
        address = nic.ipv4.partition("/")[0]
        own = {"set": ["0.0.0.0", address]}
        rules.append([arp, _match(_payload("arp", "saddr ip"), own), {"accept": None}])
        rules.append([ip, _match(_payload("ip", "saddr"), address), {"accept": None}])
    return rules


def _sender_ipv6(nic: DesiredNic) -> list[Rule]:
    """Link-local addresses are the guest's choice, but not the gateway's, which routes lead to."""
    ip6 = _match({"meta": {"key": "protocol"}}, "ip6")
    own: list[Any] = ["::", {"prefix": {"addr": "fe80::", "len": 10}}]
    if nic.ipv6 is not None:
        own.append(nic.ipv6.partition("/")[0])
    gateway = link_local(bridge_mac(nic.network_id))
    return [
        [ip6, _match(_payload("ip6", "saddr"), gateway), {"drop": None}],
        *_advertisements(nic, gateway),
        [ip6, _match(_payload("icmpv6", "type"), "nd-router-advert"), {"drop": None}],
        [ip6, _match(_payload("udp", "sport"), 547), {"drop": None}],
        [ip6, _match(_payload("ip6", "saddr"), {"set": own}), {"accept": None}],
    ]


def _advertisements(nic: DesiredNic, gateway: str) -> list[Rule]:
    """Neighbour advertisements (RFC 4861, section 4.4) only for addresses of its own."""
    advertisement = _match(_payload("icmpv6", "type"), "nd-neighbor-advert")
    target = {"payload": {"base": "th", "offset": 64, "len": 128}}
    target_prefix = {"payload": {"base": "th", "offset": 64, "len": 10}}
    foreign = [_match(target_prefix, 0x3FA, "!=")]  # fe80::/10
    if nic.ipv6 is not None:
        foreign.append(_match(target, _number(nic.ipv6.partition("/")[0]), "!="))
    return [
        [advertisement, _match(target, _number(gateway)), {"drop": None}],
        [advertisement, *foreign, {"drop": None}],
    ]


# ---- pieces


def _chain(
    family: str, table: str, name: str, type: str, hook: str, priority: int
) -> dict[str, Any]:
    chain = {
        "family": family,
        "table": table,
        "name": name,
        "type": type,
        "hook": hook,
        "prio": priority,
        "policy": "accept",
    }
    return {"add": {"chain": chain}}


def _rule(family: str, table: str, chain: str, expressions: Rule) -> dict[str, Any]:
    return {
        "add": {"rule": {"family": family, "table": table, "chain": chain, "expr": expressions}}
    }


def _match(left: Mapping[str, Any], right: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def _number(address: str) -> str:
    return hex(int(ipaddress.ip_address(address)))


def _in(device: Any, operator: str = "==") -> dict[str, Any]:
    return _match({"meta": {"key": "iifname"}}, device, operator)


def _out(device: Any, operator: str = "==") -> dict[str, Any]:
    return _match({"meta": {"key": "oifname"}}, device, operator)


def _established() -> dict[str, Any]:
    return _match({"ct": {"key": "state"}}, ["established", "related"], "in")


def _family(cidr: str) -> str:
    return "ip" if ipaddress.ip_network(cidr).version == 4 else "ip6"


def _prefix(cidr: str) -> dict[str, Any]:
    network = ipaddress.ip_network(cidr)
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}
