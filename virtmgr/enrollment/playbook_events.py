"""What ansible-runner tells of a run, in our own words. Pure.

Its events: https://ansible.readthedocs.io/projects/runner/en/stable/intro/#runner-artifact-job-events-host-and-playbook-events
Nothing of a task's arguments and results goes on but what is named here: either may hold secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from virtmgr.domain.installation import TaskFailed, tail
from virtmgr.ports.playbooks import MachineFound, Said, TaskBegan

Told = TaskBegan | Said | MachineFound | TaskFailed

_PREFLIGHT = "virtmgr.core.preflight"
_LONGEST = 1500  # characters of one line of the log


def translate(event: Mapping[str, Any]) -> Iterator[Told]:
    """What one event says that somebody wants to know."""
    kind, data = event.get("event"), event.get("event_data") or {}
    result = data.get("res")
    result = result if isinstance(result, Mapping) else {}
    role = str(data.get("role") or "").rpartition(".")[2]
    task = str(data.get("name") or data.get("task") or "")
    task = task.partition(" : ")[2] or task
    if kind == "playbook_on_task_start":
        yield TaskBegan(role, task)
        yield Said(f"{role}: {task}" if role else task)
    elif kind == "runner_on_ok":
        if data.get("task_action") == _PREFLIGHT:
            yield MachineFound(str(result.get("machine_id", "")), str(result.get("hostname", "")))
        if result.get("changed"):
            yield Said("  changed")
        if data.get("task_action") in ("ansible.builtin.debug", "debug"):
            yield from _lines(result.get("msg"))
    elif kind == "runner_retry":
        yield Said("  not yet; tried again")
    elif kind == "runner_on_failed":
        if data.get("ignore_errors"):
            yield Said("  failed; that is expected here")
            return
        failed = _failed(task, role, result, unreachable=False)
        yield from _lines(f"  failed: {failed.message}")
        yield from _lines(failed.stderr)
        yield failed
    elif kind == "runner_on_unreachable":
        failed = _failed(task, role, result, unreachable=True)
        yield from _lines(f"  unreachable: {failed.message}")
        yield failed


def _failed(task: str, role: str, result: Mapping[str, Any], *, unreachable: bool) -> TaskFailed:
    message = result.get("msg") or ("its output is not shown" if "censored" in result else "")
    return TaskFailed(
        task=task,
        role=role,
        message=tail(_text(message)),
        stderr=tail(_text(result.get("stderr") or result.get("module_stderr") or "")),
        unreachable=unreachable,
    )


def findings(event: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """What a preflight found, errors first; nothing of other events."""
    data = event.get("event_data") or {}
    if event.get("event") != "runner_on_ok" or data.get("task_action") != _PREFLIGHT:
        return ()
    result = data.get("res") or {}
    if not result.get("errors"):
        return ()
    return (*result["errors"], *result.get("warnings_found", ()))


def _text(message: object) -> str:
    if isinstance(message, list):
        return "\n".join(str(each) for each in message)
    return str(message)


def _lines(message: object) -> Iterator[Said]:
    for line in _text(message or "").splitlines():
        if line.strip():
            yield Said(line[:_LONGEST])
