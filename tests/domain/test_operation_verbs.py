"""What can be cancelled and tried again; and that whoever is told so finds somebody who does it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.operation_verbs import (
    CANCELLABLE,
    RETRYABLE,
    cancel_refusal,
    retry_refusal,
)
from virtmgr.services.operation_control import CANCELS, RETRIES


def operation(kind: str, verb: str, state: str, **parameters: object) -> Operation:
    return Operation(
        id=new_id(),
        verb=verb,
        target_type=kind,
        target_id=new_id(),
        target_name="it",
        project_id=None,
        user_id=None,
        state=OperationState(state),
        parameters=parameters,
        created_at=datetime.now(UTC),
        updated_at=datetime.now(UTC),
    )


def test_each_has_a_service() -> None:
    assert CANCELS.keys() == CANCELLABLE.keys()
    assert RETRIES.keys() == RETRYABLE.keys()


@pytest.mark.parametrize(("kind", "verb"), sorted(CANCELLABLE))
def test_what_goes_on_is_cancelled(kind: str, verb: str) -> None:
    for state in ("pending", "running"):
        assert cancel_refusal(operation(kind, verb, state)) is None
    for state in ("succeeded", "failed", "cancelled"):
        why = cancel_refusal(operation(kind, verb, state))
        assert why is not None
        assert why.code == "has_ended"


@pytest.mark.parametrize(("kind", "verb"), sorted(RETRYABLE))
def test_what_failed_is_tried_again(kind: str, verb: str) -> None:
    assert retry_refusal(operation(kind, verb, "failed")) is None
    codes = {
        state: retry_refusal(operation(kind, verb, state)) for state in ("running", "succeeded")
    }
    assert {state: why and why.code for state, why in codes.items()} == {
        "running": "goes_on",
        "succeeded": "has_succeeded",
    }


@pytest.mark.parametrize(
    ("kind", "verb"),
    [("workload", "start"), ("host", "enroll"), ("host", "fence"), ("quota", "update")],
)
def test_the_rest_says_why_it_is_not_cancelled(kind: str, verb: str) -> None:
    why = cancel_refusal(operation(kind, verb, "running"))
    assert why is not None
    assert why.code == "not_cancellable"
    assert why.message


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (operation("workload", "create", "failed"), "tried_by_itself"),
        (operation("workload", "clone", "failed"), "tried_by_itself"),
        (operation("workload", "update", "failed"), "not_retryable"),
        (operation("image", "publish", "failed"), "not_retryable"),
        (operation("image", "import", "cancelled"), "not_retryable"),
        (operation("image", "import", "failed", upload="u"), "not_retryable"),
        (operation("image", "import", "failed", credentials="c"), "not_retryable"),
    ],
)
def test_what_is_not_tried_again_says_why(found: Operation, code: str) -> None:
    why = retry_refusal(found)
    assert why is not None
    assert why.code == code
