"""Where a host's tunnels start, found out in a network namespace that stands for it."""

from __future__ import annotations

import pytest

from tests.drivers.network.world import run
from virtmgr.domain.host import Tunnel
from virtmgr.drivers.network.underlay import Underlay

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("host")]


@pytest.fixture
def uplink(host: None) -> None:  # noqa: ARG001  set up first
    for command in (
        "link add wire type veth peer name far",
        "link set far up",
        "link set wire mtu 1600 up",
        "addr add 192.0.2.1/24 dev wire",
        "addr add 2001:db8::1/64 dev wire nodad",
    ):
        assert run("ip", *command.split()).returncode == 0


@pytest.mark.usefixtures("uplink")
@pytest.mark.parametrize(
    ("server", "asked", "expected"),
    [
        ("https://192.0.2.7:7444", "", Tunnel(address="192.0.2.1", mtu=1550)),
        ("https://[2001:db8::7]:7444", "", Tunnel(address="2001:db8::1", mtu=1530)),
        ("https://127.0.0.1:7444", "2001:db8::1", Tunnel(address="2001:db8::1", mtu=1530)),
    ],
)
def test_the_address_that_the_control_plane_is_reached_from(
    server: str, asked: str, expected: Tunnel
) -> None:
    assert Underlay(server, asked).tunnel() == expected


@pytest.mark.usefixtures("uplink")
@pytest.mark.parametrize(
    ("server", "asked", "why"),
    [
        ("https://127.0.0.1:7444", "", "from 127.0.0.1, which is of no use to other hosts"),
        ("https://198.51.100.1:7444", "", "there is no way to https://198.51.100.1:7444"),
        ("https://192.0.2.7:7444", "192.0.2.9", "no network device of this host has the address"),
    ],
)
def test_why_there_is_none(server: str, asked: str, why: str) -> None:
    found = Underlay(server, asked).tunnel()
    assert (found.address, found.mtu) == ("", 0)
    assert why in found.reason


@pytest.mark.usefixtures("uplink")
def test_it_stays_while_the_way_to_the_control_plane_is_not_known() -> None:
    underlay = Underlay("https://192.0.2.7:7444")
    found = underlay.tunnel()
    assert found.address == "192.0.2.1"
    assert run("ip", "route", "del", "192.0.2.0/24").returncode == 0
    assert underlay.tunnel() == found
    assert run("ip", "addr", "del", "192.0.2.1/24", "dev", "wire").returncode == 0
    assert underlay.tunnel().address == ""
