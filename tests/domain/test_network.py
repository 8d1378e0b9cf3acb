"""What overlays derive from their id, and from the device that their tunnels run over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.ids import new_id
from virtmgr.domain.network import choose_vni, known_address, overlay_mtu, tunnel_name

LAST = 2**24 - 1


@given(st.sets(st.integers(1, LAST), max_size=50))
def test_a_vni_is_in_range_and_free(taken: set[int]) -> None:
    vni = choose_vni(new_id(), taken)
    assert 1 <= vni <= LAST
    assert vni not in taken


@pytest.mark.parametrize(
    ("tail", "taken", "expected"),
    [
        ("abcdef", set(), 0xABCDEF),
        ("abcdef", {0xABCDEF, 0xABCDF0}, 0xABCDF1),
        ("ffffff", {LAST}, 1),
        ("000000", set(), 1),
    ],
)
def test_a_vni_comes_from_the_networks_id(tail: str, taken: set[int], expected: int) -> None:
    assert choose_vni(f"01900000-0000-7000-8000-000000{tail}", taken) == expected


def test_what_a_tunnel_carries() -> None:
    assert overlay_mtu("192.0.2.1", 1500) == 1450
    assert overlay_mtu("2001:db8::1", 1500) == 1430


def test_a_tunnels_name_fits_the_kernel() -> None:
    assert len(tunnel_name(new_id())) == 15


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (" 10.0.0.7 ", "10.0.0.7"),
        ("FD00:0:0::0007", "fd00::7"),
        ("52:AB:0c:00:00:01", "52:ab:0c:00:00:01"),
        ("52-AB-0C-00-00-01", "52:ab:0c:00:00:01"),
    ],
)
def test_an_address_is_known_however_it_is_written(text: str, known: str) -> None:
    assert known_address(text) == known


@pytest.mark.parametrize("text", ["", "web", "10.0.0", "10.0.0.0/8", "52:ab:0c:00:00", "7"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="neither an IP address nor a MAC"):
        known_address(text)
