"""From what a driver sees to the state that people see. Pure."""

from __future__ import annotations

from virtmgr.domain.plan import Observation, Plan, Seen, Step
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.values import format_bytes
from virtmgr.domain.workload import PowerState, Reason, State

STATE_DURING = {
    Step.PREPARE: State.PREPARING,
    Step.CLONE: State.PREPARING,
    Step.ARRIVE: State.PREPARING,
    Step.START: State.STARTING,
    Step.STOP: State.STOPPING,
    Step.DESTROY: State.DELETING,
}
"""The state while a step is carried out; other steps leave it as it is."""


def observed_state(
    desired: DesiredWorkload, seen: Observation, plan: Plan
) -> tuple[State, Reason | None]:
    """The state, and its reason, of a workload that nothing is being done to right now.

    :param plan: what is still to be done; one that only waits explains a restart to come.
    """
    if desired.deleting:
        return State.DELETING, None
    if seen.state is Seen.RUNNING:
        return State.RUNNING, None
    if seen.state is Seen.PAUSED:
        return State.PAUSED, None
    if seen.state is not Seen.EXITED or desired.state is PowerState.STOPPED:
        wanted_off = desired.state is PowerState.STOPPED
        return (State.STOPPED if wanted_off else State.PENDING), None
    how, code, hint = _how_it_ended(desired, seen)
    if plan.wait_until is not None:
        at = plan.wait_until.strftime("%H:%M:%S")
        return State.FAILED, Reason(
            code="restarting", message=f"{how} and is restarted at {at} UTC", hint=hint
        )
    if seen.exit_code == 0:
        return State.STOPPED, Reason(code="exited", message=how)
    return State.FAILED, Reason(code=code, message=how, hint=hint)


def _how_it_ended(desired: DesiredWorkload, seen: Observation) -> tuple[str, str, str]:
    """For people, for programs, and what to do next."""
    name = desired.name
    how = "it ended" if seen.exit_code is None else f"it ended with exit code {seen.exit_code}"
    if seen.oom_killed:
        limit = format_bytes(desired.spec.resources.memory)
        why = f"{how}: it needed more than its {limit} of memory"
        return why, "oom_killed", f"give it more with 'virtmgr resize {name} --memory SIZE'"
    return how, "exited", f"see 'virtmgr logs {name}'"


def state_after_failure(step: Step | None, seen: Observation | None, *, final: bool) -> State:
    """The state to show after ``step`` failed (None: the look itself did).

    One that runs on although a change of it failed is running; the reason says what failed.
    """
    if seen is None or step is None:
        return State.UNKNOWN
    if step is Step.DESTROY:
        return State.DELETING
    if seen.state is Seen.RUNNING and step is not Step.START:
        return State.RUNNING
    if seen.state is Seen.PAUSED and step is not Step.START:
        return State.PAUSED
    return State.FAILED if final else STATE_DURING.get(step, State.PENDING)
