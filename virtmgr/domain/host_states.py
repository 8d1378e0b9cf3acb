"""The life of a host: what may follow what, and which verb is possible when. Pure.

Two things make a host's state. What an operator made of it (``scheduling_state``: ready, cordoned,
draining, maintenance) is changed by verbs only. Whether it speaks, and has what workloads need, is
seen: a silent host is unreachable and one that lacks something is probing, whatever an operator
made of it, and is that again afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from virtmgr.domain.errors import IllegalTransition
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.readiness import missing

COMING: Final = frozenset({HostState.ENROLLING, HostState.INSTALLING, HostState.INSTALL_FAILED})
"""A host whose agent was never heard of."""

SILENT: Final = (HostState.UNREACHABLE, HostState.FENCED)
"""A host that does not renew its lease."""

SCHEDULING: Final = (
    HostState.READY,
    HostState.CORDONED,
    HostState.DRAINING,
    HostState.MAINTENANCE,
)
"""What an operator may make of a host that is there."""


class HostVerb(StrEnum):
    """What may be asked of a host."""

    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"
    CANCEL_DRAIN = "cancel_drain"
    MAINTENANCE = "maintenance"


_VERBS: Final[Mapping[HostVerb, tuple[HostState, Mapping[HostState, str]]]] = {
    HostVerb.CORDON: (
        HostState.CORDONED,
        {
            HostState.DRAINING: "it is draining and takes nothing new anyway",
            HostState.MAINTENANCE: "it is in maintenance and takes nothing new anyway",
        },
    ),
    HostVerb.UNCORDON: (HostState.READY, {HostState.DRAINING: "it is being drained"}),
    HostVerb.DRAIN: (HostState.DRAINING, {HostState.MAINTENANCE: "nothing runs on it"}),
    HostVerb.CANCEL_DRAIN: (
        HostState.CORDONED,
        {state: "it is not being drained" for state in SCHEDULING if state != "draining"},
    ),
    HostVerb.MAINTENANCE: (HostState.MAINTENANCE, {HostState.DRAINING: "it is being drained"}),
}
"""What each verb makes of a host, and from which states it does not, and why."""

_FIRST: Final[Mapping[HostState, str]] = {
    HostState.ENROLLING: "let its agent join first",
    HostState.INSTALLING: "wait until it is installed",
    HostState.INSTALL_FAILED: "install it again first",
    HostState.REMOVING: "it is on its way out of the inventory",
    HostState.PROBING: "see what it lacks with 'virtmgr host show'",
    HostState.READY: "drain it first",
    HostState.CORDONED: "drain it first",
    HostState.DRAINING: "wait for its drain, or cancel that",
    HostState.MAINTENANCE: "activate it with 'virtmgr host uncordon'",
}


def after(verb: HostVerb, host: Host) -> HostState:
    """The scheduling state that ``verb`` brings ``host`` to; the one that it has: nothing to do.

    A silent host can be cordoned and uncordoned: it comes back as that.

    :raises IllegalTransition: not from its state; the message says why, the hint what to do first.
    """
    wanted, refused = _VERBS[verb]
    if host.state in COMING or host.state is HostState.REMOVING:
        raise _illegal(verb, host, f"it is {host.state} and takes nothing anyway", host.state)
    current = host.scheduling_state
    if current in refused:
        raise _illegal(verb, host, refused[current], current)
    if host.state in SILENT and wanted in _NEED_AN_ANSWER:
        raise IllegalTransition(
            f"cannot {_words(verb)} host {host.name!r}: it does not answer",
            hint="bring the host back first",
            detail={"verb": str(verb), "state": str(host.state)},
        )
    return wanted


_NEED_AN_ANSWER = (HostState.DRAINING, HostState.MAINTENANCE)


def spoke(host: Host) -> HostState:
    """The state of a host that has just been heard of.

    One that comes, or comes back, is ``probing`` until nothing is missing. One that is there stays
    so: where a driver fails later, the scheduler leaves out what it ran.
    """
    if host.state is HostState.REMOVING:
        return host.state
    comes = host.state in COMING or host.state is HostState.PROBING
    returns = host.state in SILENT and bool(host.facts)
    if (comes or returns) and missing(host.facts):
        return HostState.PROBING
    return host.scheduling_state


def may_fall_silent(state: HostState) -> bool:
    """Whether a host in this state becomes unreachable when its lease ends."""
    return state not in COMING and state not in (*SILENT, HostState.REMOVING)


def _illegal(verb: HostVerb, host: Host, why: str, state: HostState) -> IllegalTransition:
    return IllegalTransition(
        f"cannot {_words(verb)} host {host.name!r}: {why}",
        hint=_FIRST[state],
        detail={"verb": str(verb), "state": str(state)},
    )


def _words(verb: HostVerb) -> str:
    return {"maintenance": "put into maintenance", "cancel_drain": "cancel the drain of"}.get(
        verb, str(verb)
    )


def mermaid() -> str:
    """The diagram in docs/, in Mermaid's language (https://mermaid.js.org/syntax/stateDiagram)."""
    return """stateDiagram-v2
    [*] --> enrolling: host token
    [*] --> installing: host add
    installing --> install_failed: a task failed
    install_failed --> installing: again
    enrolling --> probing: first sync
    installing --> probing: first sync
    probing --> there: nothing is missing
    probing --> unreachable: host silent
    state there {
        [*] --> ready
        ready --> cordoned: cordon
        cordoned --> ready: uncordon
        ready --> draining: drain
        cordoned --> draining: drain
        draining --> maintenance: nothing is left
        draining --> cordoned: cancelled, or something stays
        ready --> maintenance: maintenance
        cordoned --> maintenance: maintenance
        maintenance --> ready: uncordon
    }
    there --> unreachable: host silent
    unreachable --> there: host speaks, as what it was (recovered)
    unreachable --> fenced: its power was cut, or an operator confirms that it is off
    unreachable --> probing: host speaks, and lacks something
    fenced --> there: host speaks, as what it was (recovered)
    there --> removing: remove
    probing --> removing: remove
    removing --> [*]: it has cleared up, or a minute is over
    there --> [*]: remove by force
    fenced --> [*]: remove
    unreachable --> [*]: remove
    enrolling --> [*]: remove
    install_failed --> [*]: remove
"""
