"""When agents sync and poll, as decisions: for every pace that a host can come to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from virtmgr.agent import pacing
from virtmgr.agent.pacing import INTERVAL, Pace
from virtmgr.domain.leases import USUAL
from virtmgr.domain.sync import ObservedWorkload
from virtmgr.domain.workload import WorkloadStatus

_SECONDS = st.floats(0, 1e6)
_POLLS = st.lists(st.tuples(_SECONDS, st.none() | _SECONDS, st.booleans()), max_size=20)


@st.composite
def _paces(draw: st.DrawFn) -> Pace:
    """What polls one after the other have made of it."""
    pace, clock = Pace(), 0.0
    for passed, pause, guarded in draw(_POLLS):
        clock += passed
        renewing = pace.may_beat(clock, guarded=guarded)
        pace = pace.polling(renewing=renewing)
        if renewing or pause is None:
            pace = pace.polled(clock, pause)
    return pace


def _report(*, gone: bool) -> ObservedWorkload:
    return ObservedWorkload(id="a", observed_generation=1, status=WorkloadStatus(), gone=gone)


@given(failures=st.integers(1, 10**9), longest=st.floats(0.01, pacing.BACK_OFF_MOST))
def test_the_pause_after_failures_grows_up_to_the_longest(failures: int, longest: float) -> None:
    least, most = pacing.back_off(failures, longest)
    assert 0 < least < most <= longest
    assert pacing.back_off(failures + 1, longest) >= (least, most)
    assert pacing.back_off(failures + 10, longest)[1] == longest


@given(seconds=_SECONDS, lease=st.floats(0.1, 1e3), guarded=st.booleans())
def test_a_lease_that_counts_survives_two_lost_syncs(
    seconds: float, lease: float, guarded: bool
) -> None:
    pause = pacing.within_lease(seconds, lease, guarded=guarded)
    assert pause <= seconds
    assert not guarded or 3 * pause <= lease * 1.001
    assert guarded or pause == seconds
    assert pacing.within_lease(seconds, 0.0, guarded=guarded) == seconds


@given(pace=_paces(), clock=_SECONDS, pause=_SECONDS, guarded=st.booleans())
def test_who_does_not_renew_leaves_it_to_the_other(
    pace: Pace, clock: float, pause: float, guarded: bool
) -> None:
    """Syncs are rare only while polls renew the lease."""
    assert pace.is_beating is (pace.routine > INTERVAL)
    renewing = pace.may_beat(clock, guarded=guarded)
    assert not (renewing and guarded)
    assert pace.polling(renewing=False).routine == INTERVAL
    refused = pace.polled(clock, None)
    assert refused.routine == INTERVAL
    assert not refused.may_beat(clock, guarded=False)
    assert refused.may_beat(clock + INTERVAL, guarded=False)
    assert pace.polled(clock, pause).routine == max(INTERVAL, pause)


def test_a_lease_is_renewed_thrice_in_its_time_by_polls_and_by_syncs() -> None:
    _, longest = pacing.poll_seconds(renewing=True)
    assert 3 * longest <= USUAL.total_seconds()
    assert 3 * Pace().routine <= USUAL.total_seconds()


@given(pace=_paces(), since=_SECONDS, die=st.floats(0, 1))
def test_a_sync_without_news_is_sent_as_a_poll_ends_before_it_is_sent_beside_one(
    pace: Pace, since: float, die: float
) -> None:
    """A poll that renews the lease lasts no longer than the grace."""
    _, longest = pacing.poll_seconds(renewing=True)
    share = pace.share(die)
    due = pace.is_due_between_polls(since, share)
    assert not due or pace.is_beating
    if pace.is_beating:
        assert longest <= pace.grace
        assert due is (since >= share * pace.routine)
    else:
        assert pace.grace == 0.0


@given(pace=_paces(), since=_SECONDS, first=st.booleans(), guarded=st.booleans())
def test_a_brief_sync_asks_for_nothing_that_matters_now(
    pace: Pace, since: float, first: bool, guarded: bool
) -> None:
    for news in ((), (_report(gone=False),), (_report(gone=True), _report(gone=False))):
        if pace.is_brief(news, first=first, guarded=guarded, since=since):
            assert not first
            assert not any(one.gone for one in news)
            assert news or guarded
            assert since < pace.routine
    assert not pace.is_brief((), first=False, guarded=False, since=since)
    assert pace.is_brief((), first=False, guarded=True, since=0.0)


@given(pace=_paces(), since=_SECONDS)
def test_usage_is_told_at_each_routine_sync(pace: Pace, since: float) -> None:
    assert pace.tells_usage(pace.share(0.0) * pace.routine)
    assert not pace.tells_usage(0.0)
    assert pace.tells_usage(since) or 2 * since < pace.routine
