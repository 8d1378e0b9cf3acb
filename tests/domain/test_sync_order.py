"""Whatever comes late, the last word that counts is the last that was said."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.errors import Conflict
from virtmgr.domain.host import Host
from virtmgr.domain.ids import new_id
from virtmgr.domain.sync import SyncOrder, SyncRequest
from virtmgr.domain.sync_order import take


def _host() -> Host:
    return Host(id=new_id(), name="h1", cluster_id=new_id(), created_at=datetime.now(UTC))


def _is_taken(host: Host, order: SyncOrder | None) -> bool:
    try:
        take(host, order)
    except Conflict:
        return False
    return True


@st.composite
def arrivals(draw: st.DrawFn) -> list[SyncOrder]:
    """Syncs as they arrive: each once or twice, in any order, those of two runs that follow each
    other mixed, once the later one has been heard."""
    runs = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    arrived: list[SyncOrder] = []
    before: list[SyncOrder] = []
    for run, many in enumerate(runs):
        sent = [SyncOrder(run=f"run-{run}", number=number + 1) for number in range(many)]
        first = draw(st.sampled_from(sent))
        again = draw(st.lists(st.sampled_from(sent + before), max_size=5))
        arrived += [first, *draw(st.permutations([*sent, *again]))]
        before = sent
    return arrived


@given(arrivals())
def test_what_is_taken_in_is_in_order(arrived: list[SyncOrder]) -> None:
    host = _host()
    taken = [order for order in arrived if _is_taken(host, order)]
    said = [(order.run, order.number) for order in taken]
    assert said == sorted(set(said))
    assert said[-1] == max((order.run, order.number) for order in arrived)


def test_a_run_that_was_never_heard_is_taken_for_a_new_one_once() -> None:
    """Then the agent that runs is refused, and begins another run."""
    host = _host()
    assert _is_taken(host, SyncOrder(run="b", number=1))
    assert _is_taken(host, SyncOrder(run="a", number=1))
    assert not _is_taken(host, SyncOrder(run="b", number=2))
    assert _is_taken(host, SyncOrder(run="c", number=3))
    assert not _is_taken(host, SyncOrder(run="a", number=2))


def test_agents_that_do_not_tell_are_taken_as_they_come() -> None:
    host = _host()
    assert _is_taken(host, SyncOrder(run="a", number=2))
    assert _is_taken(host, None)
    assert not _is_taken(host, SyncOrder(run="a", number=1))


@pytest.mark.parametrize("full", [False, True])
def test_what_only_renews_a_lease_has_no_place(full: bool) -> None:
    request = SyncRequest(brief=True, known_revision=3, full=full)
    assert (request.numbered("a", 1).order is None) is not full
