"""The life of a host: complete, and clear when it refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from virtmgr.domain.errors import IllegalTransition
from virtmgr.domain.host import DriverFacts, Fingerprint, Host, HostState
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
from virtmgr.domain.readiness import missing
from virtmgr.domain.workload import Reason


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


_NO_CRUN = Reason(code="missing", message="there is no crun", hint="install crun")


def facts(**given: Any) -> dict[str, Any]:
    """Of a host that lacks nothing, but for what is given."""
    driver = DriverFacts(name="oci", healthy=True, kinds=("container",))
    known: dict[str, Any] = {
        "hostname": "node1",
        "machine_id": "1",
        "boot_id": "b",
        "architecture": "x86_64",
        "vcpus": 1,
        "memory": 1,
        "disk": 1,
        "drivers": (driver,),
    }
    return Fingerprint(**{**known, **given}).model_dump(mode="json")


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
    if state in SILENT or state is HostState.PROBING:
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
        assert spoke(replace(host(state), facts=facts())) is HostState.READY
    assert spoke(host(HostState.REMOVING)) is HostState.REMOVING


@pytest.mark.parametrize("state", [*sorted(COMING), HostState.PROBING, HostState.UNREACHABLE])
@pytest.mark.parametrize("made", SCHEDULING)
def test_a_host_is_probing_until_nothing_is_missing(state: HostState, made: HostState) -> None:
    comes = replace(host(state, made), facts=facts(drivers=()))
    assert spoke(comes) is HostState.PROBING
    assert spoke(replace(comes, facts=facts())) is made
    assert spoke(replace(host(made), facts=facts(drivers=()))) is made  # where it is already


@pytest.mark.parametrize(
    ("lacks", "code", "told"),
    [
        ({"drivers": ()}, "no_driver", "it has no driver"),
        ({"drivers": (DriverFacts(name="oci", healthy=True),)}, "no_driver", "oci"),
        (
            {"drivers": (DriverFacts(name="oci", healthy=False, reason=_NO_CRUN),)},
            "no_driver",
            "there is no crun",
        ),
        ({"disk": 0}, "no_pool", "no room"),
        ({"kernel_features": {"veth": False, "bridge": True}}, "no_network", "veth"),
    ],
)
def test_what_is_missing_is_named(lacks: dict[str, Any], code: str, told: str) -> None:
    (found,) = missing(facts(**lacks))
    assert found.code == code
    assert told in found.message
    assert found.hint


def test_without_facts_nothing_is_known() -> None:
    assert [found.code for found in missing({})] == ["no_facts"]
    assert not missing({**facts(), "may_replace": True})


def test_the_picture_has_every_state() -> None:
    assert all(state in mermaid() for state in HostState)
