"""When an operation is finished, and how."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.outcome import outcome
from virtmgr.domain.workload import Reason, State, WorkloadStatus

NOW = datetime(2030, 1, 1, tzinfo=UTC)
EXITED = Reason(code="exited", message="it ended with exit code 1")
BROKEN = Reason(code="storage_error", message="the disk is full", hint="remove something")


def operation(verb: str = "start", *, generation: int = 2, progress: float = 0.0) -> Operation:
    return Operation(
        id="o",
        verb=verb,
        target_type="workload",
        target_id="w",
        target_name="web1",
        project_id="p",
        user_id="u",
        generation=generation,
        progress=progress,
        created_at=NOW,
        updated_at=NOW,
    )


def status(state: State = State.RUNNING, **given: Any) -> WorkloadStatus:
    return WorkloadStatus(state=state, **given)


@pytest.mark.parametrize("verb", ["create", "start", "stop", "restart", "update"])
def test_it_runs_until_its_generation_was_acted_on(verb: str) -> None:
    early = outcome(operation(verb), status(), observed_generation=1, gone=False)
    done = outcome(operation(verb), status(), observed_generation=2, gone=False)
    assert early.state is OperationState.RUNNING
    assert (done.state, done.progress, done.reason) == (OperationState.SUCCEEDED, 1.0, None)


def test_a_delete_is_done_when_nothing_is_left_and_not_before() -> None:
    waiting = outcome(
        operation("delete"), status(State.DELETING), observed_generation=9, gone=False
    )
    done = outcome(operation("delete"), status(State.DELETING), observed_generation=9, gone=True)
    assert waiting.state is OperationState.RUNNING
    assert done.state is OperationState.SUCCEEDED


def test_other_operations_are_cancelled_when_the_workload_is_gone() -> None:
    result = outcome(operation("start"), status(), observed_generation=2, gone=True)
    assert result.state is OperationState.CANCELLED
    assert "deleted" in result.message


def test_a_failed_step_fails_the_operation_with_its_reason() -> None:
    result = outcome(
        operation(), status(State.FAILED, reason=BROKEN), observed_generation=2, gone=False
    )
    assert result.state is OperationState.FAILED
    assert result.reason == BROKEN
    assert result.message == BROKEN.message


def test_an_update_that_failed_fails_although_the_workload_runs_on() -> None:
    result = outcome(operation("update"), status(reason=BROKEN), observed_generation=2, gone=False)
    assert result.state is OperationState.FAILED


def test_a_reason_before_its_generation_is_told_but_fails_nothing() -> None:
    result = outcome(
        operation(), status(State.STARTING, reason=BROKEN), observed_generation=1, gone=False
    )
    assert (result.state, result.message) == (OperationState.RUNNING, BROKEN.message)


@pytest.mark.parametrize(
    ("verb", "state", "expected"),
    [
        ("start", State.FAILED, OperationState.FAILED),
        ("create", State.FAILED, OperationState.FAILED),
        ("create", State.STOPPED, OperationState.SUCCEEDED),  # a job that ended well
        ("stop", State.FAILED, OperationState.SUCCEEDED),
        ("update", State.FAILED, OperationState.SUCCEEDED),
    ],
)
def test_one_that_ended_by_itself_fails_only_what_should_have_made_it_run(
    verb: str, state: State, expected: OperationState
) -> None:
    result = outcome(
        operation(verb), status(state, reason=EXITED), observed_generation=2, gone=False
    )
    assert result.state is expected


def test_fields_that_wait_for_a_restart_are_named() -> None:
    result = outcome(
        operation("update"),
        status(needs_restart=("env", "resources.vcpus")),
        observed_generation=2,
        gone=False,
    )
    assert result.state is OperationState.SUCCEEDED
    assert "env, resources.vcpus" in result.message


@given(st.sampled_from(State), st.floats(0, 1), st.booleans())
def test_progress_never_falls_and_ends_at_one(state: State, before: float, done: bool) -> None:
    result = outcome(
        operation(progress=before),
        status(state, progress="fetching image 43 %"),
        observed_generation=2 if done else 1,
        gone=False,
    )
    assert before <= result.progress <= 1.0
    assert result.progress == 1.0 or not done
    if not done:
        assert result.message == "fetching image 43 %"
