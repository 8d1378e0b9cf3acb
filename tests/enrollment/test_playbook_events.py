"""Of what Ansible tells, nothing goes on but what is meant to."""

from __future__ import annotations

from typing import Any

from virtmgr.domain.installation import TaskFailed
from virtmgr.enrollment.playbook_events import findings, translate
from virtmgr.ports.playbooks import MachineFound, Said, TaskBegan


def _event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": data}


def test_a_task_is_named_with_its_role() -> None:
    event = _event(
        "playbook_on_task_start",
        task="virtmgr.core.packages : Install packages",
        name="virtmgr.core.packages : Install packages",
        role="virtmgr.core.packages",
    )
    assert list(translate(event)) == [
        TaskBegan("packages", "Install packages"),
        Said("packages: Install packages"),
    ]


def test_the_machine_is_known_from_its_preflight() -> None:
    result = {"machine_id": "abc", "hostname": "node1", "errors": []}
    event = _event("runner_on_ok", task_action="virtmgr.core.preflight", res=result)
    assert list(translate(event)) == [MachineFound("abc", "node1")]
    # Ansible's own fact is D-Bus's id first, which copies of a machine keep.
    facts = {"ansible_machine_id": "xyz"}
    assert not list(translate(_event("runner_on_ok", res={"ansible_facts": facts})))


def test_arguments_and_results_stay_where_they_are() -> None:
    result = {"changed": True, "stdout": "secret", "invocation": {"module_args": {"x": "secret"}}}
    event = _event("runner_on_ok", task="Do", task_args="secret", res=result)
    assert "secret" not in str(list(translate(event)))


def test_a_failure_has_message_and_stderr() -> None:
    result = {"msg": "non-zero return code", "stderr": "why", "stdout": "secret", "rc": 1}
    event = _event("runner_on_failed", task="Do", role="virtmgr.core.agent", res=result)
    failed = TaskFailed("Do", "agent", "non-zero return code", "why")
    assert list(translate(event)) == [
        Said("  failed: non-zero return code"),
        Said("why"),
        failed,
    ]


def test_a_failure_that_is_expected_is_none() -> None:
    event = _event("runner_on_failed", task="Do", ignore_errors=True, res={"msg": "no"})
    assert not [told for told in translate(event) if isinstance(told, TaskFailed)]


def test_what_ansible_hides_stays_hidden() -> None:
    event = _event("runner_on_failed", task="Do", res={"censored": "the output has been hidden …"})
    failed = [told for told in translate(event) if isinstance(told, TaskFailed)]
    assert failed == [TaskFailed("Do", message="its output is not shown")]


def test_unreachable_is_told_apart() -> None:
    event = _event("runner_on_unreachable", task="Look", res={"msg": "timed out"})
    failed = [told for told in translate(event) if isinstance(told, TaskFailed)]
    assert failed == [TaskFailed("Look", message="timed out", unreachable=True)]


def test_findings_are_those_of_a_preflight_that_refuses() -> None:
    error, warning = {"what": "memory"}, {"what": "kvm"}
    result = {"errors": [error], "warnings_found": [warning]}
    event = _event("runner_on_ok", task_action="virtmgr.core.preflight", res=result)
    assert findings(event) == (error, warning)
    result["errors"] = []
    assert findings(event) == ()
    assert findings(_event("runner_on_ok", task_action="command", res={"errors": [1]})) == ()


def test_events_of_nobody_say_nothing() -> None:
    assert list(translate({"event": "verbose"})) == []
    assert list(translate(_event("runner_on_start", task="Do"))) == []
