"""Reasons are told with the names that people know."""

from __future__ import annotations

from tests.agent.fakes import desired
from virtmgr.agent.telling import in_names
from virtmgr.domain.workload import Reason

ID = "01997d2e-7c1e-7aaa-8000-000000000001"
WORKLOAD = desired(ID, name="web", spec={"name": "web"})


def told(message: str, hint: str | None = None) -> tuple[str, str | None]:
    reason = in_names(Reason(code="x", message=message, hint=hint), WORKLOAD)
    return reason.message, reason.hint


def test_ids_become_names_but_in_paths() -> None:
    assert told(f"cannot stop VM {ID}: it is busy") == ("cannot stop VM web: it is busy", None)
    assert told(f"workload {ID!r} is gone")[0] == "workload 'web' is gone"
    assert told(f"/pool/{ID}/disk is full")[0] == f"/pool/{ID}/disk is full"


def test_of_a_hint_only_our_commands_take_names() -> None:
    assert told("x", f"correct it with 'virtmgr edit {ID}'")[1] == (
        "correct it with 'virtmgr edit web'"
    )
    other = f"see 'virsh domjobinfo {ID}' on its host"
    assert told("x", other)[1] == other
