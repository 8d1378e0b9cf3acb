"""What this host's network can do, found out by trying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pyroute2 import IPRoute

from virtmgr.domain.errors import NetworkError
from virtmgr.drivers.network.namespace import in_new_namespace
from virtmgr.drivers.network.netlink import find_link, netlink
from virtmgr.drivers.network.tools import find_tool, run_tool


@dataclass
class NetworkFacts:
    """Versions (empty: not installed) and kernel features, with the reasons for what is not."""

    nft: str = ""
    dnsmasq: str = ""
    features: dict[str, bool] = field(default_factory=dict)  # bridge, veth, vxlan, vlan, nftables
    reasons: dict[str, str] = field(default_factory=dict)


def network_facts() -> NetworkFacts:
    """Try everything in a network namespace that is thrown away (about 50 ms)."""
    facts = NetworkFacts()
    facts.nft = _attempt(facts, "nft", lambda: _version("nft", "--version"))
    facts.dnsmasq = _attempt(facts, "dnsmasq", lambda: _version("dnsmasq", "--version"))
    in_new_namespace(lambda: _probe(facts))
    return facts


def _probe(facts: NetworkFacts) -> None:
    def make(kind: str, **options: object) -> Callable[[], str]:
        def attempt() -> str:
            with netlink(f"making a {kind} device") as ip:
                _add(ip, kind, options)
            return kind

        return attempt

    for kind, options in (
        ("bridge", {}),
        ("veth", {"peer": "probe-peer"}),
        ("vxlan", {"vxlan_id": 1, "vxlan_port": 4789}),
    ):
        facts.features[kind] = bool(_attempt(facts, kind, make(kind, **options)))
    facts.features["vlan"] = bool(_attempt(facts, "vlan", _try_vlan))
    facts.features["nftables"] = bool(_attempt(facts, "nftables", _try_nftables))


def _add(ip: IPRoute, kind: str, options: dict[str, object]) -> None:
    ip.link("add", ifname=f"probe-{kind}", kind=kind, **options)


def _try_vlan() -> str:
    """A VLAN (802.1Q) on the bridge that was made before."""
    with netlink("making a vlan device") as ip:
        below = find_link(ip, "probe-bridge")
        if below is None:
            raise NetworkError("making a vlan device failed: there is no device below it")
        _add(ip, "vlan", {"link": below.index, "vlan_id": 1})
    return "vlan"


def _try_nftables() -> str:
    """A real table of the bridge family, which not every kernel has."""
    run_tool([find_tool("nft"), "add", "table", "bridge", "probe"], "making a bridge table")
    return "nftables"


def _version(program: str, option: str) -> str:
    words = run_tool([find_tool(program), option], f"asking {program} for its version").split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "unknown")


def _attempt(facts: NetworkFacts, name: str, work: Callable[[], str]) -> str:
    try:
        return work()
    except NetworkError as error:
        facts.reasons[name] = error.message
        return ""
