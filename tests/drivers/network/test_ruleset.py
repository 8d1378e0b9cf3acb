"""The firewall as data: pinned by a golden file, and accepted by nft itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.network.samples import network, nic, workload
from virtmgr.domain.network import NetworkType
from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload
from virtmgr.domain.workload import Kind, Port
from virtmgr.drivers.network.addresses import bridge_mac, link_local
from virtmgr.drivers.network.ruleset import removal, ruleset
from virtmgr.drivers.network.tools import find

GOLDEN = Path(__file__).parent / "golden" / "ruleset.json"


def sample() -> dict[str, Any]:
    """Two networks and a bridge of the host's, with one workload of each sort."""
    default = network(64)
    four_only = network(65, "four", ipv6=None, gateway6=None)
    joined = network(66, "lan", type=NetworkType.BRIDGE, bridge="br0")
    ports = (
        Port(host=8080, guest=80),
        Port(host=8081, guest=80, address="0.0.0.0"),
        Port(host=53, guest=5353, protocol="udp", address="192.0.2.1"),
        Port(host=8082, guest=80, address="::"),
    )
    workloads = [
        workload("web", nic(2, default), nic(3, four_only, 1), ports=ports),
        workload("vm", nic(4, joined), kind=Kind.VM),
        workload("hermit"),
    ]
    return ruleset([default, four_only, joined], workloads, "virtmgr")


def check(commands: dict[str, Any]) -> None:
    """Let nft check the commands in a network namespace of their own."""
    done = subprocess.run(
        ["unshare", "-n", find("nft", "nftables"), "-c", "-j", "-f", "-"],
        input=json.dumps(commands).encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_ruleset_is_the_one_in_the_golden_file() -> None:
    """After a change that is meant: write ``pretty(sample())`` there, and read the difference."""
    assert pretty(sample()) == GOLDEN.read_text()


def pretty(commands: dict[str, Any]) -> str:
    """One command a line, keys sorted."""
    lines = ",\n".join(json.dumps(one, sort_keys=True) for one in commands["nftables"])
    return f'{{"nftables": [\n{lines}\n]}}\n'


def test_both_tables_are_replaced_in_one_transaction() -> None:
    commands = sample()["nftables"]
    for family in ("inet", "bridge"):
        table = {"table": {"family": family, "name": "virtmgr"}}
        start = commands.index({"add": table})
        assert commands[start : start + 3] == [{"add": table}, {"delete": table}, {"add": table}]


def test_a_bridge_network_of_the_hosts_is_not_routed_or_translated() -> None:
    routed = [one for one in sample()["nftables"] if "inet" in json.dumps(one)]
    assert not any("br0" in json.dumps(one) for one in routed)


def test_addresses_that_derive_from_others() -> None:
    assert bridge_mac("01997d2e-7c1e-7aaa-8000-0123456789ab") == "52:fe:45:67:89:ab"
    assert link_local("52:fe:45:67:89:ab") == "fe80::50fe:45ff:fe67:89ab"


@pytest.mark.host
def test_nft_accepts_sample_nothing_and_removal() -> None:
    for commands in (sample(), ruleset([], [], "virtmgr"), removal("virtmgr")):
        check(commands)


ports = st.builds(
    Port,
    host=st.integers(1, 65535),
    guest=st.integers(1, 65535),
    protocol=st.sampled_from(["tcp", "udp"]),
    address=st.sampled_from(["127.0.0.1", "0.0.0.0", "::", "::1", "192.0.2.1", "2001:db8::1"]),
)


@st.composite
def hosts(draw: st.DrawFn) -> tuple[list[DesiredNetwork], list[DesiredWorkload]]:
    found = []
    for number in range(draw(st.integers(0, 3))):
        without = draw(st.sampled_from([(), ("ipv4", "gateway4"), ("ipv6", "gateway6")]))
        found.append(network(64 + number, f"net{number}", **dict.fromkeys(without)))
    workloads = [
        workload(
            f"w{number}",
            *(nic(2 + number, on, index) for index, on in enumerate(found[:1])),
            ports=tuple(draw(st.lists(ports, max_size=3))),
        )
        for number in range(draw(st.integers(0, 3)))
    ]
    return found, workloads


@pytest.mark.host
@settings(max_examples=15, deadline=None)
@given(hosts())
def test_nft_accepts_whatever_hosts_have(
    host: tuple[list[DesiredNetwork], list[DesiredWorkload]],
) -> None:
    check(ruleset(*host, "virtmgr"))
