"""What may be asked of a workload as it is now, so that pages offer that only. Pure.

The API decides; this only keeps buttons away that would be refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.states import Outcome, Verb, check_verb
from virtmgr.domain.workload import Kind, PowerState, State, WorkloadSpec

OFFERED: Final = (
    *(Verb.START, Verb.STOP, Verb.RESTART, Verb.PAUSE, Verb.RESUME, Verb.DELETE),
    *(Verb.UPDATE, Verb.CLONE, Verb.PUBLISH, Verb.CONSOLE, Verb.VNC, Verb.EXEC),
)


def refusals(workload: Mapping[str, Any]) -> Mapping[str, str]:
    """Each verb that is not possible now, with the reason; those that are missing are possible."""
    asked = workload["spec"]
    spec = WorkloadSpec.model_construct(
        name=workload["name"],
        kind=Kind(workload["kind"]),
        state=PowerState(asked["state"]),
        protected=asked["protected"],
    )
    state, deleting = State(workload["status"]["state"]), workload["deleting"]
    found = {verb.value: _refusal(verb, state, spec, deleting=deleting) for verb in OFFERED}
    return {verb: why for verb, why in found.items() if why is not None}


def _refusal(verb: Verb, state: State, spec: WorkloadSpec, *, deleting: bool) -> str | None:
    try:
        outcome = check_verb(verb, state, spec, deleting)
    except VirtmgrError as error:
        return f"{error.message}; {error.hint}" if error.hint else error.message
    return f"it is {state} already" if outcome is Outcome.NOTHING else None
