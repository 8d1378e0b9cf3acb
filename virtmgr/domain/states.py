"""The state machine of a workload: what may follow what, and which verb is possible when.

``State`` is what was observed. ``spec.state`` is what the owner wants. Verbs change what is wanted
(or open a stream), and the host follows; so what a verb may do depends on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from virtmgr.domain.errors import IllegalTransition, Protected
from virtmgr.domain.workload import PowerState, State, WorkloadSpec

GONE: Final = "gone"
"""After ``deleting``: nothing is left on the host, and the row goes."""
StateOrGone = State | Literal["gone"]

_STEPS: Mapping[State, tuple[State, ...]] = {
    State.PENDING: (State.PREPARING, State.FAILED),
    State.PREPARING: (State.STARTING, State.STOPPED, State.FAILED),
    State.STARTING: (State.RUNNING, State.STOPPING, State.STOPPED, State.FAILED),
    State.RUNNING: (
        State.PAUSED,
        State.STOPPING,
        State.STARTING,  # ended by itself, and its restart policy starts it again
        State.STOPPED,  # ended by itself
        State.FAILED,
    ),
    State.PAUSED: (State.RUNNING, State.STOPPING, State.STOPPED, State.FAILED),
    State.STOPPING: (State.STOPPED, State.STARTING, State.FAILED),  # starting: a restart
    State.STOPPED: (State.PREPARING, State.STARTING, State.FAILED),  # preparing: on another host
    State.FAILED: (State.PENDING, State.PREPARING, State.STARTING, State.STOPPED),
}
_ALIVE = tuple(_STEPS)


def _all_transitions() -> dict[State, frozenset[StateOrGone]]:
    """The steps, and what is possible everywhere: the host falls silent, or it is deleted."""
    anywhere = (State.UNKNOWN, State.DELETING)
    found: dict[State, frozenset[StateOrGone]] = {
        state: frozenset((*following, *anywhere)) for state, following in _STEPS.items()
    }
    found[State.UNKNOWN] = frozenset((*_ALIVE, State.DELETING))
    found[State.DELETING] = frozenset((GONE, State.UNKNOWN))
    return found


TRANSITIONS: Final[Mapping[State, frozenset[StateOrGone]]] = _all_transitions()
"""What may directly follow each state."""


def may_follow(before: State, after: StateOrGone) -> bool:
    """Whether a workload may go from ``before`` to ``after`` in one step, or stay.

    Syncs are samples and may miss states in between: hold a host's reports against this only
    where it reports every step.
    """
    return before == after or after in TRANSITIONS[before]


def mermaid() -> str:
    """The diagram in docs/, in Mermaid's language (https://mermaid.js.org/syntax/stateDiagram)."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.PENDING}", "    state alive {"]
    for state, following in _STEPS.items():
        lines += [f"        {state} --> {after}" for after in following]
    lines += [
        "    }",
        f"    alive --> {State.UNKNOWN}: host silent",
        f"    {State.UNKNOWN} --> alive: host reports again",
        f"    alive --> {State.DELETING}",
        f"    {State.UNKNOWN} --> {State.DELETING}",
        f"    {State.DELETING} --> {State.UNKNOWN}: host silent",
        f"    {State.DELETING} --> [*]: {GONE}",
    ]
    return "\n".join(lines) + "\n"


class Verb(StrEnum):
    """What may be asked of a workload that is there."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    UPDATE = "update"
    ATTACH_VOLUME = "attach_volume"
    DETACH_VOLUME = "detach_volume"
    ATTACH_NIC = "attach_nic"
    DETACH_NIC = "detach_nic"
    CLONE = "clone"
    PUBLISH = "publish"
    EXEC = "exec"
    CONSOLE = "console"
    VNC = "vnc"
    LOGS = "logs"
    FILES = "files"


class Outcome(StrEnum):
    """What an allowed request comes to."""

    ACT = "act"
    NOTHING = "nothing"  # it is so already, or on its way: answer success and change nothing


@dataclass(frozen=True)
class VerbRule:
    """When a verb is possible (``allowed``).

    It has nothing to do in one of the states ``done`` while ``wants`` is what is wanted already.
    """

    allowed: frozenset[State]
    wants: PowerState | None = None
    done: frozenset[State] = frozenset()
    guarded: bool = False  # refused while the spec says ``protected``


_ANY = frozenset(State) - {State.DELETING}
_COMING = frozenset({State.PENDING, State.PREPARING, State.STARTING})
_HAS_PROCESS = frozenset({State.STARTING, State.RUNNING, State.PAUSED, State.STOPPING})
_CHANGE = VerbRule(allowed=_ANY)  # of the spec: the host takes it up when it can
_AT_REST = VerbRule(allowed=frozenset({State.STOPPED}))  # so is its disk

RULES: Final[Mapping[Verb, VerbRule]] = {
    Verb.START: VerbRule(
        allowed=_ANY - {State.PAUSED},
        wants=PowerState.RUNNING,
        done=_COMING | {State.RUNNING},
    ),
    Verb.STOP: VerbRule(  # while stopping it acts: the second request may be the forced one
        allowed=_ANY,
        wants=PowerState.STOPPED,
        done=frozenset({State.PENDING, State.PREPARING, State.STOPPED}),
        guarded=True,
    ),
    Verb.RESTART: VerbRule(
        allowed=frozenset({State.STARTING, State.RUNNING, State.PAUSED, State.FAILED})
    ),
    Verb.PAUSE: VerbRule(
        allowed=frozenset({State.RUNNING, State.PAUSED}),
        wants=PowerState.PAUSED,
        done=frozenset({State.RUNNING, State.PAUSED}),
    ),
    Verb.RESUME: VerbRule(
        allowed=frozenset({State.RUNNING, State.PAUSED}),
        wants=PowerState.RUNNING,
        done=frozenset({State.RUNNING, State.PAUSED}),
    ),
    Verb.DELETE: VerbRule(allowed=frozenset(State), guarded=True),
    Verb.UPDATE: _CHANGE,
    Verb.ATTACH_VOLUME: _CHANGE,
    Verb.DETACH_VOLUME: _CHANGE,
    Verb.ATTACH_NIC: _CHANGE,
    Verb.DETACH_NIC: _CHANGE,
    Verb.CLONE: _AT_REST,
    Verb.PUBLISH: _AT_REST,
    Verb.EXEC: VerbRule(allowed=frozenset({State.RUNNING})),
    Verb.CONSOLE: VerbRule(allowed=_HAS_PROCESS),
    Verb.VNC: VerbRule(allowed=_HAS_PROCESS),
    Verb.LOGS: VerbRule(allowed=_ANY - {State.PENDING, State.UNKNOWN}),
    Verb.FILES: VerbRule(allowed=frozenset({State.RUNNING, State.PAUSED, State.STOPPED})),
}

_NEXT: Mapping[State, str] = {
    State.PENDING: "wait until its host has taken it up",
    State.PREPARING: "wait until it has started",
    State.STARTING: "wait until it runs",
    State.RUNNING: "stop it first",
    State.PAUSED: "resume it first",
    State.STOPPING: "wait until it has stopped",
    State.STOPPED: "start it first",
    State.FAILED: "its status says why it failed; put that right and start it",
    State.UNKNOWN: "its host does not report; bring the host back first",
    State.DELETING: "wait until it is gone",
}


def check_verb(
    verb: Verb | str, state: State, spec: WorkloadSpec, deleting: bool = False
) -> Outcome:
    """Whether ``verb`` is possible for a workload, and whether it has anything to do.

    :param state: what was last observed.
    :param spec: what its owner asked for, before this request.
    :param deleting: whether its deletion has been asked for.
    :raises ValueError: there is no such verb.
    :raises IllegalTransition: not from this state; the message names the states that allow it,
        the hint says what to do first.
    :raises Protected: ``spec.protected`` refuses it.
    """
    verb = Verb(verb)
    rule = RULES[verb]
    if deleting or state is State.DELETING:
        if verb is Verb.DELETE:
            return Outcome.NOTHING
        raise _illegal(verb, State.DELETING, spec)
    if state not in rule.allowed:
        raise _illegal(verb, state, spec)
    if rule.wants is spec.state and state in rule.done:
        return Outcome.NOTHING
    if rule.guarded and spec.protected:
        raise Protected(
            f"cannot {verb} workload {spec.name!r}: it is protected",
            hint="set protected to false first",
            field="protected",
        )
    return Outcome.ACT


def check_at_rest(
    verb: Verb | str, state: State, spec: WorkloadSpec, deleting: bool = False
) -> None:
    """Refuse to copy the disk of a workload that is not stopped, or is about to be started.

    :raises IllegalTransition: it is one; see ``check_verb``.
    """
    check_verb(verb, state, spec, deleting)
    if spec.state is not PowerState.STOPPED:
        raise IllegalTransition(
            f"cannot {verb} workload {spec.name!r}: it ended by itself and may be started again",
            hint="stop it first",
        )


def check_not_published(verb: Verb | str, name: str, images: Sequence[str]) -> None:
    """Refuse to change, start or delete a workload while its host sends its disk.

    :param images: names of those that are being made from it.
    :raises IllegalTransition: there are some.
    """
    if images:
        raise IllegalTransition(
            f"cannot {verb.replace('_', ' ')} workload {name!r}: image {', '.join(images[:3])} is "
            "being made from it",
            code="being_published",
            hint="wait until the image is made, or delete it",
            detail={"verb": str(verb), "images": list(images)},
        )


def check_not_copied(verb: Verb | str, name: str, copies: Sequence[str]) -> None:
    """Refuse to change, start or delete a workload while its disk is being copied.

    :param copies: names of the clones that are not made yet.
    :raises IllegalTransition: there are some.
    """
    if copies:
        shown = ", ".join(copies[:3]) + (" and others" if len(copies) > 3 else "")
        raise IllegalTransition(
            f"cannot {verb.replace('_', ' ')} workload {name!r}: it is being cloned to {shown}",
            code="being_cloned",
            hint="wait until the clone is made, or delete it",
            detail={"verb": str(verb), "clones": list(copies)},
        )


def check_not_moved(verb: Verb | str, name: str, target: str | None) -> None:
    """Refuse to change, start, stop or delete a workload that is on its way to another host.

    :param target: name of that host; None: it stays where it is.
    :raises IllegalTransition: it is on its way.
    """
    if target is not None:
        raise IllegalTransition(
            f"cannot {verb.replace('_', ' ')} workload {name!r}: it is being moved to host "
            f"{target}",
            code="being_moved",
            hint="wait until it is there, or cancel that with 'virtmgr migration cancel'",
            detail={"verb": str(verb), "target": target},
        )


def power_verb(before: PowerState, after: PowerState) -> Verb | None:
    """The verb that changing ``spec.state`` comes to, so that an update obeys the same rules."""
    if before is after:
        return None
    if after is PowerState.STOPPED:
        return Verb.STOP
    if after is PowerState.PAUSED:
        return Verb.PAUSE
    return Verb.RESUME if before is PowerState.PAUSED else Verb.START


def _illegal(verb: Verb, state: State, spec: WorkloadSpec) -> IllegalTransition:
    allowed = [str(s) for s in State if s in RULES[verb].allowed]
    return IllegalTransition(
        f"cannot {verb.replace('_', ' ')} workload {spec.name!r}: it is {state}; "
        f"possible while it is {' or '.join(allowed)}",
        hint=_NEXT[state],
        detail={"verb": str(verb), "state": str(state), "allowed": allowed},
    )
