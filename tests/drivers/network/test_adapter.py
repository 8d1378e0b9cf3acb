"""Bringing a host to its networks: repeatable, minimal, and without a trace at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.drivers.network.world import TABLE, nat_network, nic_on, run, with_names, workload
from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import mac_address
from virtmgr.drivers.network.adapter import LinuxNetwork
from virtmgr.drivers.network.facts import network_facts

pytestmark = pytest.mark.host


def _handles() -> str:
    """Every object of the firewall with the kernel's handle: new ones after any change."""
    return run("nft", "--handle", "list", "ruleset").stdout


def test_bridge_is_as_desired(adapter: LinuxNetwork) -> None:
    network = nat_network().model_copy(update={"mtu": 1400})
    adapter.ensure([network], [])
    [link] = json.loads(run("ip", "-j", "addr", "show", network.bridge).stdout)
    assert (link["address"], link["mtu"]) == (mac_address(network.id), 1400)
    assert {each["local"] for each in link["addr_info"]} >= {"10.71.0.1", "fd00:71::1"}
    assert not any(each.get("tentative") for each in link["addr_info"])
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"


def test_nothing_is_done_twice(adapter: LinuxNetwork, run_directory: Path) -> None:
    network = nat_network()
    each = workload("one", nic_on(network, 2))
    network = with_names(network, each)
    adapter.ensure([network], [each])
    before = _handles(), (run_directory / network.id / "dnsmasq.pid").read_text()
    adapter.ensure([network], [each])
    again = LinuxNetwork(
        run_directory=run_directory,
        table=TABLE,
        resolv_file=run_directory.parent / "resolv.conf",
    )
    again.recover()
    again.ensure([network], [each])
    assert (_handles(), (run_directory / network.id / "dnsmasq.pid").read_text()) == before


def test_what_others_removed_comes_back(adapter: LinuxNetwork) -> None:
    network = nat_network()
    adapter.ensure([network], [])
    run("nft", "flush", "ruleset")
    run("ip", "addr", "flush", "dev", network.bridge)
    adapter.recover()
    adapter.ensure([network], [])
    assert f"table bridge {TABLE}" in _handles()
    assert "10.71.0.1/16" in run("ip", "addr", "show", network.bridge).stdout
    run("ip", "link", "delete", network.bridge)
    adapter.ensure([network], [])
    assert run("ip", "link", "show", network.bridge).returncode == 0


def test_networks_that_are_not_desired_go_and_foreign_devices_stay(
    adapter: LinuxNetwork, run_directory: Path
) -> None:
    blue, red = nat_network("blue", 71), nat_network("red", 72)
    run("ip", "link", "add", "vmbforeign", "type", "bridge")
    run("nft", "add", "table", "inet", "foreign")
    adapter.ensure([blue, red], [])
    adapter.ensure([red], [])
    assert run("ip", "link", "show", blue.bridge).returncode != 0
    assert [path.name for path in run_directory.iterdir()] == [red.id]
    adapter.remove_all()
    assert run("ip", "link", "show", red.bridge).returncode != 0
    assert run("ip", "link", "show", "vmbforeign").returncode == 0
    assert run("nft", "list", "tables").stdout == "table inet foreign\n"
    run("ip", "link", "delete", "vmbforeign")
    run("nft", "delete", "table", "inet", "foreign")


def test_a_name_that_another_device_has_is_explained(adapter: LinuxNetwork) -> None:
    network = nat_network()
    run("ip", "link", "add", network.bridge, "type", "veth", "peer", "name", "other")
    with pytest.raises(NetworkError, match="which another device has"):
        adapter.ensure([network], [])
    run("ip", "link", "delete", network.bridge)


def test_settings_that_change_take_effect(adapter: LinuxNetwork) -> None:
    network = nat_network("blue", 71)
    adapter.ensure([network], [])
    moved = nat_network("blue", 77, id=network.id)
    adapter.ensure([moved], [])
    shown = run("ip", "addr", "show", network.bridge).stdout
    assert "10.77.0.1/16" in shown
    assert "10.71.0.1/16" not in shown
    assert adapter.healthy()


@pytest.mark.usefixtures("host")
def test_own_route_from_an_advertisement_survives_forwarding(adapter: LinuxNetwork) -> None:
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    adapter.ensure([nat_network()], [])
    assert Path("/proc/sys/net/ipv6/conf/up0/accept_ra").read_text() == "2\n"
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "1\n"


@pytest.mark.usefixtures("host")
def test_facts() -> None:
    facts = network_facts()
    assert ("vlan" in facts.reasons) is not facts.features.pop("vlan")  # not every kernel has it
    assert facts.features == {"bridge": True, "veth": True, "vxlan": True, "nftables": True}
    assert facts.nft
    assert facts.dnsmasq
    assert run("ip", "link", "show", "probe-bridge").returncode != 0
