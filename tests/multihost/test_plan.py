"""The pure part of the lab."""

from __future__ import annotations

import pytest

from tests.lab.network import partition_rules
from tests.lab.plan import MAX_HOSTS, Flavour, Release, fleet, hosts_file
from tests.lab.state import HostState

_BOTH = (Release.BOOKWORM, Release.TRIXIE)


def test_releases_take_turns() -> None:
    hosts = fleet(3, _BOTH, Flavour.BARE)
    assert [(host.name, host.release) for host in hosts] == [
        ("h1", "12"),
        ("h2", "13"),
        ("h3", "12"),
    ]


def test_nothing_is_told_apart_by_less_than_all_hosts() -> None:
    hosts = fleet(MAX_HOSTS, _BOTH, Flavour.BARE)
    for what in ("name", "address", "mac"):
        assert len({getattr(host, what) for host in hosts}) == MAX_HOSTS
    assert len(hosts_file(hosts).splitlines()) == MAX_HOSTS + 2


@pytest.mark.parametrize(("count", "releases"), [(0, _BOTH), (MAX_HOSTS + 1, _BOTH), (1, ())])
def test_impossible_fleets(count: int, releases: tuple[Release, ...]) -> None:
    with pytest.raises(ValueError, match="takes 1 to"):
        fleet(count, releases, Flavour.BARE)


def _host(number: int, *cut_from: str) -> HostState:
    return HostState(number, Release.BOOKWORM, Flavour.BARE, cut_from=cut_from)


def test_whole_hosts_are_cut_off_nowhere() -> None:
    assert "drop" not in partition_rules([_host(1), _host(2)])


def test_a_cut_holds_both_ways_and_for_a_slow_cable_too() -> None:
    h1, h2 = '{ "p-h1", "b-h1" }', '{ "p-h2", "b-h2" }'
    rules = partition_rules([_host(1, "h2"), _host(2)])
    assert f"iifname {h1} oifname {h2} drop" in rules
    assert f"iifname {h2} oifname {h1} drop" in rules
    assert rules.count("drop") == 2


def test_a_cut_from_the_control_plane_is_one_from_nobody_else() -> None:
    forward = partition_rules([_host(1, "control")]).partition("chain input")[0]
    assert "drop" not in forward


def test_a_cut_from_everything() -> None:
    rules = partition_rules([_host(1, "*"), _host(2)])
    for chain in ("forward", "input", "output"):
        assert "p-h1" in rules.partition(f"chain {chain}")[2].partition("chain")[0]
