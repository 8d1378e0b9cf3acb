"""The life of a host: complete, and clear when it refuses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from virtmgr.domain.errors import IllegalTransition
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.host_states import (
    COMING,
    SCHEDULING,
    SILENT,
    HostVerb,
    after,
    may_fall_silent,
    mermaid,
    spoke,
)


def host(state: HostState, scheduling: HostState | None = None) -> Host:
    made = scheduling or (state if state in SCHEDULING else HostState.READY)
    return Host(
        id="1",
        name="node1",
        cluster_id="c",
        state=state,
        scheduling_state=made,
        created_at=datetime.now(UTC),
    )


_LEGAL = {
    HostVerb.CORDON: {"ready": "cordoned", "cordoned": "cordoned"},
    HostVerb.UNCORDON: {"ready": "ready", "cordoned": "ready", "maintenance": "ready"},
    HostVerb.DRAIN: {"ready": "draining", "cordoned": "draining", "draining": "draining"},
    HostVerb.CANCEL_DRAIN: {"draining": "cordoned"},
    HostVerb.MAINTENANCE: {
        "ready": "maintenance",
        "cordoned": "maintenance",
        "maintenance": "maintenance",
    },
}


@pytest.mark.parametrize("verb", HostVerb)
@pytest.mark.parametrize("state", HostState)
def test_each_verb_from_each_state(verb: HostVerb, state: HostState) -> None:
    if state in SILENT:
        return
    wanted = _LEGAL[verb].get(state)
    if wanted is not None:
        assert after(verb, host(state)) == wanted
        return
    with pytest.raises(IllegalTransition, match=r"cannot .* host 'node1': ") as caught:
        after(verb, host(state))
    assert caught.value.hint


@pytest.mark.parametrize("verb", HostVerb)
@pytest.mark.parametrize("made", SCHEDULING)
def test_a_silent_host_can_be_told_what_needs_no_answer(verb: HostVerb, made: HostState) -> None:
    silent = host(HostState.UNREACHABLE, made)
    wanted = _LEGAL[verb].get(made)
    if wanted is None or verb in (HostVerb.DRAIN, HostVerb.MAINTENANCE):
        with pytest.raises(IllegalTransition):
            after(verb, silent)
    else:
        assert after(verb, silent) == wanted


@pytest.mark.parametrize("made", SCHEDULING)
def test_silence_and_return(made: HostState) -> None:
    assert may_fall_silent(made)
    assert spoke(host(HostState.UNREACHABLE, made)) is made
    for state in COMING:
        assert not may_fall_silent(state)
        assert spoke(host(state)) is HostState.READY
    assert spoke(host(HostState.REMOVING)) is HostState.REMOVING


def test_the_picture_has_every_state() -> None:
    assert all(state in mermaid() for state in HostState if state is not HostState.REMOVING)
