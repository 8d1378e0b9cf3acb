"""What overlays derive from their id and their device, and which addresses networks have left."""

from __future__ import annotations

import ipaddress
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.ids import new_id
from virtmgr.domain.network import (
    choose_vni,
    free_addresses,
    known_address,
    overlay_mtu,
    tunnel_name,
)

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


@pytest.mark.parametrize("cidr", ["10.1.0.0/22", "10.1.0.0/24", "10.1.0.0/30", "10.1.0.0/31"])
def test_free_addresses_are_all_but_those_of_the_network_itself(cidr: str) -> None:
    network = ipaddress.ip_network(cidr)
    hosts = [str(one) for one in network if one not in (network[0], network[1], network[-1])]
    assert list(free_addresses(cidr, ())) == hosts
    assert list(free_addresses(cidr, hosts[::2])) == hosts[1::2]
    assert list(free_addresses(cidr, ["fd00::2", "192.0.2.1", *hosts])) == []


def test_free_addresses_of_a_large_network_are_found_one_by_one() -> None:
    taken = list(islice(free_addresses("fd00::/64", ()), 1000))
    assert (taken[0], taken[-1]) == ("fd00::2", "fd00::3e9")
    assert next(free_addresses("fd00::/64", taken)) == "fd00::3ea"
    assert next(free_addresses("fd00::/64", taken[1:])) == "fd00::2"


def test_free_addresses_are_found_by_several_threads_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: list(free_addresses("10.2.0.0/20", ())), range(8)))
    assert all(each == found[0] for each in found)
    assert len(found[0]) == len(set(found[0])) == 4096 - 3
