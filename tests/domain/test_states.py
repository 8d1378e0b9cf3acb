"""The state machine: complete, consistent with itself, and clear when it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.errors import IllegalTransition, Protected
from virtmgr.domain.states import (
    GONE,
    RULES,
    TRANSITIONS,
    Outcome,
    Verb,
    check_not_copied,
    check_verb,
    may_follow,
    mermaid,
    power_verb,
)
from virtmgr.domain.workload import PowerState, State, WorkloadSpec


def spec(**given: Any) -> WorkloadSpec:
    return WorkloadSpec.model_validate(
        {"name": "web1", "kind": "container", "image": "nginx", **given}
    )


def test_every_state_and_every_verb_stands_in_its_table() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set(RULES) == set(Verb)


def test_every_state_leads_to_gone_and_comes_from_pending() -> None:
    def reach(start: State) -> set[str]:
        seen: set[str] = {start}
        waiting = [start]
        while waiting:
            for after in TRANSITIONS[waiting.pop()] - seen:
                seen.add(after)
                if isinstance(after, State):
                    waiting.append(after)
        return seen

    assert all(GONE in reach(state) for state in State)
    assert reach(State.PENDING) == {*State, GONE}


def test_deleting_never_comes_back_to_life_in_one_step() -> None:
    assert TRANSITIONS[State.DELETING] == {GONE, State.UNKNOWN}
    assert all(GONE not in TRANSITIONS[state] for state in set(State) - {State.DELETING})


@pytest.mark.parametrize(
    ("before", "after", "legal"),
    [
        (State.PENDING, State.PREPARING, True),
        (State.RUNNING, State.PAUSED, True),
        (State.PAUSED, State.RUNNING, True),
        (State.RUNNING, State.RUNNING, True),
        (State.UNKNOWN, State.RUNNING, True),
        (State.PENDING, State.RUNNING, False),
        (State.STOPPED, State.RUNNING, False),
        (State.RUNNING, State.PENDING, False),
        (State.DELETING, State.RUNNING, False),
    ],
)
def test_examples_of_what_may_follow(before: State, after: State, legal: bool) -> None:
    assert may_follow(before, after) is legal


def test_the_diagram_says_what_the_table_says() -> None:
    drawn: dict[str, set[str]] = {state: set() for state in State}
    inside: set[str] = set()
    for line in mermaid().splitlines():
        if found := re.fullmatch(r"( +)(\S+) --> (\S+?)(: .*)?", line):
            indent, before, after, _ = found.groups()
            if before == "[*]":
                continue
            if len(indent) == 8:
                inside |= {before}
            befores = inside if before == "alive" else {before}
            afters = inside if after == "alive" else {GONE if after == "[*]" else after}
            for one in befores:
                drawn[one] |= afters
    assert drawn == {state: set(after) for state, after in TRANSITIONS.items()}


@given(
    verb=st.sampled_from(Verb),
    state=st.sampled_from(State),
    wanted=st.sampled_from(PowerState),
    protected=st.booleans(),
    deleting=st.booleans(),
)
def test_a_verb_is_allowed_or_refused_with_the_states_named(
    verb: Verb, state: State, wanted: PowerState, protected: bool, deleting: bool
) -> None:
    workload = spec(state=wanted, protected=protected)
    seen = State.DELETING if deleting else state
    allowed = RULES[verb].allowed
    if seen is State.DELETING and verb is Verb.DELETE:
        assert check_verb(verb, state, workload, deleting) is Outcome.NOTHING
    elif seen is State.DELETING or seen not in allowed:
        with pytest.raises(IllegalTransition, match=f"'web1': it is {seen}") as refused:
            check_verb(verb, state, workload, deleting)
        assert set(refused.value.detail["allowed"]) == {str(one) for one in allowed}
        assert all(one in refused.value.message for one in allowed)
        assert refused.value.hint
    elif RULES[verb].wants is wanted and state in RULES[verb].done:
        assert check_verb(verb, state, workload, deleting) is Outcome.NOTHING
    elif protected and verb in (Verb.STOP, Verb.DELETE):
        with pytest.raises(Protected):
            check_verb(verb, state, workload, deleting)
    else:
        assert check_verb(verb, state, workload, deleting) is Outcome.ACT


@pytest.mark.parametrize(
    ("verb", "state", "wanted", "outcome"),
    [
        ("start", State.RUNNING, "running", Outcome.NOTHING),
        ("start", State.PREPARING, "running", Outcome.NOTHING),
        ("start", State.PREPARING, "stopped", Outcome.ACT),
        ("start", State.FAILED, "running", Outcome.ACT),
        ("start", State.STOPPED, "running", Outcome.ACT),  # it ended by itself
        ("start", State.RUNNING, "stopped", Outcome.ACT),  # a stop is on its way: take it back
        ("stop", State.STOPPED, "stopped", Outcome.NOTHING),
        ("stop", State.STOPPING, "stopped", Outcome.ACT),  # now by force, perhaps
        ("stop", State.UNKNOWN, "running", Outcome.ACT),
        ("pause", State.PAUSED, "paused", Outcome.NOTHING),
        ("pause", State.RUNNING, "running", Outcome.ACT),
        ("resume", State.RUNNING, "running", Outcome.NOTHING),
        ("resume", State.PAUSED, "paused", Outcome.ACT),
        ("restart", State.RUNNING, "running", Outcome.ACT),
    ],
)
def test_repeating_what_is_so_already_does_nothing(
    verb: str, state: State, wanted: str, outcome: Outcome
) -> None:
    assert check_verb(verb, state, spec(state=wanted)) is outcome


def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(IllegalTransition) as refused:
        check_verb(Verb.PAUSE, State.STOPPED, spec())
    assert refused.value.message == (
        "cannot pause workload 'web1': it is stopped; possible while it is running or paused"
    )
    assert refused.value.hint == "start it first"


def test_protection_refuses_stop_and_delete_but_not_restart() -> None:
    guarded = spec(protected=True)
    for verb in (Verb.STOP, Verb.DELETE):
        with pytest.raises(Protected, match="it is protected"):
            check_verb(verb, State.RUNNING, guarded)
    assert check_verb(Verb.RESTART, State.RUNNING, guarded) is Outcome.ACT
    stopped = spec(protected=True, state="stopped")
    assert check_verb(Verb.STOP, State.STOPPED, stopped) is Outcome.NOTHING


def test_deleting_again_is_no_error_and_all_else_is_refused() -> None:
    assert check_verb(Verb.DELETE, State.RUNNING, spec(), True) is Outcome.NOTHING
    with pytest.raises(IllegalTransition, match="it is deleting"):
        check_verb(Verb.START, State.STOPPED, spec(), True)


def test_what_is_being_copied_is_left_alone() -> None:
    check_not_copied(Verb.START, "web1", [])
    with pytest.raises(IllegalTransition, match="it is being cloned to a, b, c and others") as no:
        check_not_copied("delete", "web1", ["a", "b", "c", "d"])
    assert (no.value.code, no.value.detail["clones"]) == ("being_cloned", ["a", "b", "c", "d"])


def test_changing_the_power_state_comes_to_a_verb() -> None:
    running, stopped, paused = PowerState.RUNNING, PowerState.STOPPED, PowerState.PAUSED
    assert power_verb(running, running) is None
    assert power_verb(stopped, running) is Verb.START
    assert power_verb(paused, running) is Verb.RESUME
    assert power_verb(running, paused) is Verb.PAUSE
    assert power_verb(paused, stopped) is Verb.STOP
