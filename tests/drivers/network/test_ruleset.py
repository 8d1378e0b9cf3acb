"""The firewall as data: pinned by a golden file, accepted by nft, indifferent to order."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.network.world import nat_network, nic_on, workload
from virtmgr.domain.network import NetworkType
from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload, NetworkName
from virtmgr.domain.workload import Port, PowerState
from virtmgr.drivers.network.publications import publications
from virtmgr.drivers.network.ruleset import removal, ruleset
from virtmgr.drivers.network.spoofing import link_local

GOLDEN = Path(__file__).parent / "golden" / "ruleset.json"


def _id(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012x}"


def _example() -> tuple[list[DesiredNetwork], list[DesiredWorkload]]:
    """Two NAT networks, an overlay and a host bridge; one workload on each, and one without
    addresses; one on the overlay that is on another host."""
    blue, red = nat_network("blue", 71, id=_id(1)), nat_network("red", 72, id=_id(2))
    office = DesiredNetwork(id=_id(3), name="office", type=NetworkType.BRIDGE, bridge="br0")
    far = nat_network("far", 74, id=_id(4)).model_copy(
        update={
            "type": NetworkType.OVERLAY,
            "vni": 7001,
            "tunnel": "192.0.2.1",
            "names": (
                NetworkName(
                    name="there", mac="52:00:00:00:00:44", ipv4="10.74.0.9", ipv6="fd00:74::9",
                    tunnel="192.0.2.2",
                ),
            ),
        }
    )  # fmt: skip
    here = workload("here", nic_on(far, 8, id=_id(14)), id=_id(23))
    ports = (
        Port(host=8080, guest=80),
        Port(host=8080, guest=80, address="0.0.0.0"),
        Port(host=5353, guest=53, protocol="udp", address="192.0.2.7"),
        Port(host=8443, guest=443, address="::"),
        Port(host=8444, guest=443, address="2001:db8::7"),
    )
    web = workload("web", nic_on(blue, 5, id=_id(11)), ports=ports, id=_id(21))
    two = [nic_on(red, 6, id=_id(12)), nic_on(office, 0, index=1, id=_id(13), known=False)]
    return [blue, red, office, far], [web, workload("two", *two, id=_id(22)), here]


def test_ruleset_is_the_golden_one() -> None:
    made = json.dumps(ruleset(*_example()), indent=1) + "\n"
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made)
        pytest.fail(f"{GOLDEN.name} was missing; it has been written: read it, then run again")
    assert made == GOLDEN.read_text()


@given(st.randoms(use_true_random=False))
def test_order_does_not_matter(chance: random.Random) -> None:
    networks, workloads = _example()
    expected = ruleset(networks, workloads)
    chance.shuffle(networks)
    chance.shuffle(workloads)
    assert ruleset(networks, workloads) == expected


@pytest.mark.host
@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    "document",
    [ruleset(*_example()), ruleset([], []), ruleset(_example()[0], []), removal("virtmgr")],
    ids=["full", "empty", "no workloads", "removal"],
)
def test_nft_accepts_it(document: dict[str, object]) -> None:
    checked = subprocess.run(
        ["nft", "-j", "-c", "-f", "-"],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_link_local_address_derives_from_mac() -> None:
    assert link_local("52:54:00:12:34:56") == "fe80::5054:ff:fe12:3456"


def test_a_port_asked_twice_goes_to_the_older_workload() -> None:
    network = nat_network()
    ports = (Port(host=80, guest=80),)
    old = workload("old", nic_on(network, 2), ports=ports, id=_id(1))
    new = workload("new", nic_on(network, 3), ports=ports, id=_id(2))
    assert [each.workload for each in publications([network], [new, old])] == ["old"]


def test_a_stopped_workload_publishes_nothing() -> None:
    network = nat_network()
    ports = (Port(host=80, guest=80),)
    idle = workload("idle", nic_on(network, 2), ports=ports, state=PowerState.STOPPED)
    assert publications([network], [idle]) == ()
