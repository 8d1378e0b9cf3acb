"""What a host knows of an overlay's members elsewhere, and how its tables get there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.network.world import nat_network
from virtmgr.domain.network import NetworkType
from virtmgr.domain.sync import DesiredNetwork, NetworkName
from virtmgr.drivers.network.forwarding import Changes, changes, forwarding, out_of_reach

pairs = st.frozensets(st.tuples(st.sampled_from("abcd"), st.sampled_from("123")))


def _as_table(found: frozenset[tuple[str, str]]) -> dict[str, str]:
    return dict(found)


@given(pairs, pairs.map(_as_table).map(lambda table: frozenset(table.items())))
def test_changes_lead_from_any_table_to_the_wanted_one(
    present: frozenset[tuple[str, str]], wanted: frozenset[tuple[str, str]]
) -> None:
    plan = changes(present, wanted)
    table = set(present) - plan.removed
    for key, value in plan.put:
        of_key = {pair for pair in table if pair[0] == key}
        assert len(of_key) <= 1  # what the kernel replaces is one entry
        table = table - of_key | {(key, value)}
    assert table == wanted
    assert not plan.removed & wanted
    assert not plan.put & present


def test_a_member_that_moves_is_known_at_each_moment() -> None:
    old, new = frozenset({("m", "192.0.2.2")}), frozenset({("m", "192.0.2.3")})
    assert changes(old, new) == Changes(removed=frozenset(), put=new)


def _network(*names: NetworkName, tunnel: str = "192.0.2.1") -> DesiredNetwork:
    return nat_network("far").model_copy(
        update={"type": NetworkType.OVERLAY, "vni": 7, "tunnel": tunnel, "names": names}
    )


def test_only_members_elsewhere_are_known() -> None:
    here = NetworkName(name="here", mac="52:00:00:00:00:01", ipv4="10.71.0.2")
    there = NetworkName(
        name="there", mac="52:00:00:00:00:AA", ipv4="10.71.0.3", ipv6="fd00:71::3",
        tunnel="192.0.2.2",
    )  # fmt: skip
    four = NetworkName(name="four", mac="52:00:00:00:00:04", ipv4="10.71.0.4", tunnel="192.0.2.2")
    known = forwarding(_network(here, there, four))
    macs = {"52:00:00:00:00:aa", "52:00:00:00:00:04"}
    assert known.tunnels == {(mac, "192.0.2.2") for mac in macs}
    assert known.ports == {(mac, "") for mac in macs}
    assert known.neighbours == {
        ("10.71.0.3", "52:00:00:00:00:aa"),
        ("fd00:71::3", "52:00:00:00:00:aa"),
        ("fe80::5000:ff:fe00:aa", "52:00:00:00:00:aa"),
        ("10.71.0.4", "52:00:00:00:00:04"),
    }


def test_a_tunnel_of_the_other_ip_version_is_out_of_reach() -> None:
    six = NetworkName(name="six", mac="52:00:00:00:00:06", ipv4="10.71.0.6", tunnel="2001:db8::6")
    assert out_of_reach(_network(six)) == (six,)
    assert forwarding(_network(six)).tunnels == frozenset()
    assert out_of_reach(_network(six, tunnel="2001:db8::1")) == ()
