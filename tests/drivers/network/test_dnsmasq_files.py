"""What dnsmasq reads, as text."""

from __future__ import annotations

from pathlib import Path

from tests.drivers.network.world import nat_network, nic_on, with_names, workload
from virtmgr.domain.sync import NetworkName
from virtmgr.drivers.network.dnsmasq_files import dhcp_hosts, hosts, settings, without_stale

MAC, OTHER = "52:00:00:00:00:01", "52:00:00:00:00:02"


def test_names_and_leases() -> None:
    network = nat_network("blue", 71)
    web = workload("web", nic_on(network, 5))
    named = with_names(network, web)
    assert hosts(named) == "10.71.0.5 web.blue.virt\nfd00:71::5 web.blue.virt\n"
    assert dhcp_hosts(named) == f"{web.nics[0].mac},10.71.0.5,[fd00:71::5],web\n"


def test_only_fixed_leases_are_given() -> None:
    text = settings(nat_network("blue", 71), Path("/run/x"), "nobody", Path("/etc/resolv.conf"))
    assert "dhcp-range=10.71.0.0,static,255.255.0.0,1h\n" in text
    assert "dhcp-range=fd00:71::,static,64,1h\n" in text
    assert "local=/blue.virt/\n" in text


def test_leases_whose_address_changed_hands_are_dropped() -> None:
    kept4 = f"1700000000 {MAC} 10.71.0.2 web 01:{MAC}\n"
    taken4 = f"1700000000 {MAC} 10.71.0.3 old 01:{MAC}\n"
    gone4 = f"1700000000 {MAC} 10.71.0.9 gone *\n"
    duid = "duid 00:01:00:01:2f\n"
    kept6 = "1700000000 1234 fd00:71::2 web 00:04\n"
    taken6 = "1700000000 1234 fd00:71::3 old 00:04\n"
    network = nat_network("blue", 71).model_copy(
        update={
            "names": (
                NetworkName(name="web", mac=MAC, ipv4="10.71.0.2", ipv6="fd00:71::2"),
                NetworkName(name="new", mac=OTHER, ipv4="10.71.0.3", ipv6="fd00:71::3"),
            )
        }
    )
    before = f"{MAC},10.71.0.2,[fd00:71::2],web\n{MAC},10.71.0.3,[fd00:71::3],old\n"
    leases = kept4 + taken4 + gone4 + duid + kept6 + taken6
    assert without_stale(leases, before, network) == kept4 + duid + kept6
    assert without_stale(kept4, "", network) == kept4
