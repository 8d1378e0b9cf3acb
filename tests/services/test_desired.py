"""How a NIC reaches its host: with the inventory's addresses, and who tells the guest of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from virtmgr.domain.ids import new_id
from virtmgr.domain.network import Network, NetworkType, mac_address
from virtmgr.ports.unit_of_work import Port
from virtmgr.services.desired import _nic

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("network_type", "dhcp", "dns"),
    [(NetworkType.NAT, True, ("192.0.2.1",)), (NetworkType.BRIDGE, False, ())],
)
def test_virtmgr_answers_dhcp_and_dns_on_its_own_networks(
    network_type: NetworkType, dhcp: bool, dns: tuple[str, ...]
) -> None:
    network = Network(
        id=new_id(),
        project_id=None,
        name="office",
        type=network_type,
        ipv4="192.0.2.0/24",
        created_at=NOW,
    )
    identity = new_id()
    nic = Port(identity, 0, network.id, mac_address(identity), ("192.0.2.5",))
    desired = _nic(nic, network)
    assert (desired.ipv4, desired.gateway4) == ("192.0.2.5/24", "192.0.2.1")
    assert (desired.dhcp, desired.dns) == (dhcp, dns)
