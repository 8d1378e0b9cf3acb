"""The state that people see."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.id_ranges import FIRST, LAST, RANGE_SIZE, free_range
from virtmgr.domain.observing import STATE_DURING, observed_state, state_after_failure
from virtmgr.domain.plan import CONVERGED, Observation, Plan, Seen, Step
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import PowerState, State, WorkloadSpec

LATER = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)


def desired(state: PowerState = PowerState.RUNNING, *, deleting: bool = False) -> DesiredWorkload:
    return DesiredWorkload(
        id="w",
        project="p",
        name="web1",
        kind="container",
        init="app",
        generation=1,
        revision=1,
        spec=WorkloadSpec(name="web1", kind="container", image="nginx"),
        state=state,
        deleting=deleting,
    )


@pytest.mark.parametrize(
    ("wanted", "seen", "expected"),
    [
        (PowerState.RUNNING, Seen.RUNNING, State.RUNNING),
        (PowerState.PAUSED, Seen.PAUSED, State.PAUSED),
        (PowerState.PAUSED, Seen.RUNNING, State.RUNNING),
        (PowerState.STOPPED, Seen.EXITED, State.STOPPED),
        (PowerState.STOPPED, Seen.PREPARED, State.STOPPED),
        (PowerState.STOPPED, Seen.ABSENT, State.STOPPED),
        (PowerState.RUNNING, Seen.PREPARED, State.PENDING),
        (PowerState.RUNNING, Seen.ABSENT, State.PENDING),
    ],
)
def test_what_runs_is_running(wanted: PowerState, seen: Seen, expected: State) -> None:
    assert observed_state(desired(wanted), Observation(seen), CONVERGED) == (expected, None)


def test_a_stop_by_signal_is_no_failure() -> None:
    seen = Observation(Seen.EXITED, exit_code=137)
    assert observed_state(desired(PowerState.STOPPED), seen, CONVERGED) == (State.STOPPED, None)


@given(st.sampled_from(Seen), st.sampled_from(PowerState))
def test_what_is_deleted_is_deleting_until_it_is_gone(seen: Seen, wanted: PowerState) -> None:
    wish = desired(wanted, deleting=True)
    assert observed_state(wish, Observation(seen), CONVERGED) == (State.DELETING, None)


@pytest.mark.parametrize(
    ("code", "state"), [(0, State.STOPPED), (1, State.FAILED), (None, State.FAILED)]
)
def test_one_that_ended_by_itself_says_how(code: int | None, state: State) -> None:
    found, reason = observed_state(desired(), Observation(Seen.EXITED, code), CONVERGED)
    assert found is state
    assert reason is not None
    assert reason.code == "exited"
    assert code is None or str(code) in reason.message
    assert (reason.hint is None) is (code == 0)


def test_one_that_is_restarted_says_when() -> None:
    found, reason = observed_state(
        desired(), Observation(Seen.EXITED, 3), Plan(wait_until=LATER, reason="policy")
    )
    assert found is State.FAILED
    assert reason is not None
    assert reason.code == "restarting"
    assert "12:30:00 UTC" in reason.message
    assert "web1" in (reason.hint or "")


@pytest.mark.parametrize(
    ("step", "seen", "final", "expected"),
    [
        (None, None, True, State.UNKNOWN),
        (Step.START, None, False, State.UNKNOWN),
        (None, Seen.RUNNING, False, State.UNKNOWN),
        (Step.PREPARE, Seen.ABSENT, False, State.PREPARING),
        (Step.START, Seen.PREPARED, False, State.STARTING),
        (Step.START, Seen.PREPARED, True, State.FAILED),
        (Step.START, Seen.RUNNING, True, State.FAILED),  # of a restart
        (Step.UPDATE, Seen.RUNNING, True, State.RUNNING),
        (Step.PAUSE, Seen.RUNNING, True, State.RUNNING),
        (Step.RESUME, Seen.PAUSED, True, State.PAUSED),
        (Step.UPDATE, Seen.EXITED, False, State.PENDING),
        (Step.DESTROY, Seen.RUNNING, True, State.DELETING),
    ],
)
def test_the_state_after_a_failure(
    step: Step | None, seen: Seen | None, final: bool, expected: State
) -> None:
    observation = Observation(seen) if seen else None
    assert state_after_failure(step, observation, final=final) is expected


def test_states_during_steps_are_those_on_the_way() -> None:
    assert set(STATE_DURING.values()) == {
        State.PREPARING,
        State.STARTING,
        State.STOPPING,
        State.DELETING,
    }


@given(st.sets(st.integers(0, 50)))
def test_id_ranges_never_overlap(numbers: set[int]) -> None:
    taken = {FIRST + number * RANGE_SIZE for number in numbers}
    base = free_range(taken)
    assert base not in taken
    assert base % RANGE_SIZE == 0
    assert FIRST <= base < LAST
    assert all(abs(base - other) >= RANGE_SIZE for other in taken)


def test_a_host_without_free_ids_says_so() -> None:
    with pytest.raises(ValueError, match="in use"):
        free_range(range(FIRST, LAST, RANGE_SIZE))
