"""Through which hosts a fence device is reached, and to what a host relays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.fencing import (
    ANY,
    MOST_RELAYS,
    FenceAgent,
    FenceDevice,
    relays,
    why_not_relayed,
)
from virtmgr.domain.host import Host, HostState

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def host(id: str, state: HostState, cluster: str = "c", seconds: float = 0) -> Host:
    return Host(
        id=id, name=f"name-{id}", cluster_id=cluster, state=state, created_at=_NOW,
        last_seen_at=_NOW + timedelta(seconds=seconds),
    )  # fmt: skip


def device(via: str) -> FenceDevice:
    return FenceDevice(
        id="d", host_id="lost", name="bmc", agent=FenceAgent.IPMI, address="192.0.2.1", port=623,
        user="u", sealed="", via=via, created_at=_NOW,
    )  # fmt: skip


LOST = host("lost", HostState.UNREACHABLE)
others = st.builds(
    host,
    id=st.sampled_from(["lost", "a", "b", "c", "d"]),
    state=st.sampled_from(HostState),
    cluster=st.sampled_from(["c", "other"]),
    seconds=st.integers(0, 100),
)


@given(st.lists(others, unique_by=lambda one: one.id), st.sampled_from([ANY, "lost", "a", "gone"]))
def test_a_relay_is_another_host_that_speaks(some: list[Host], via: str) -> None:
    try:
        found = relays(device(via), LOST, some)
    except Unavailable:
        found = []
    assert len(found) <= MOST_RELAYS
    assert LOST.id not in [one.id for one in found]
    if via == ANY:
        assert {(one.state, one.cluster_id) for one in found} <= {(HostState.READY, "c")}
        times = [one.last_seen_at for one in found]
        assert times == sorted(times, key=str, reverse=True)
    else:
        assert {one.id for one in found} <= {via}


def test_a_silent_relay_is_told() -> None:
    told = "host 'name-a', that it is reached through, is fenced"
    with pytest.raises(Unavailable, match=told) as caught:
        relays(device("a"), LOST, [host("a", HostState.FENCED)])
    assert caught.value.code == "no_fence_relay"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "ff02::1",
     "255.255.255.255"],
)  # fmt: skip
def test_nothing_is_relayed_to_the_host_itself(address: str) -> None:
    assert why_not_relayed(ip_address(address)) is not None


@pytest.mark.parametrize("address", ["10.0.0.9", "192.168.1.1", "fe80::1", "2001:db8::1"])
def test_to_other_machines_it_is(address: str) -> None:
    assert why_not_relayed(ip_address(address)) is None
