"""Planning and remembering, against a small world that carries steps out and crashes anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from virtmgr.domain.plan import (
    STEADY_AFTER,
    Memory,
    Observation,
    Plan,
    Seen,
    Step,
    failure_delay,
    held_back,
    plan,
    restart_delay,
)
from virtmgr.domain.remembering import after_failure, after_step, before_start, carried_out
from virtmgr.domain.sync import Arrival, CloneSource, DesiredWorkload
from virtmgr.domain.workload import HaSpec, PowerState, RestartPolicy, WorkloadSpec

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ALIVE = (Seen.RUNNING, Seen.PAUSED)
ROUNDS = 6


def desired(
    state: PowerState = PowerState.RUNNING,
    restart: RestartPolicy = RestartPolicy.NEVER,
    **given: Any,
) -> DesiredWorkload:
    spec = WorkloadSpec.model_validate(
        {"name": "web1", "kind": "container", "image": "nginx", "restart": restart, "state": state}
    )
    document = {"id": "w", "project": "p", "name": "web1", "kind": "container", "init": "app"}
    return DesiredWorkload.model_validate(
        document | {"generation": 1, "revision": 1, "spec": spec, "state": state} | given
    )


class Crash(Exception):
    """The agent was killed."""


@dataclass
class World:
    """One workload on one host, and its agent, as ``agent.rounds`` works."""

    desired: DesiredWorkload
    memory: Memory = field(default_factory=Memory)
    seen: Observation = field(default_factory=lambda: Observation(Seen.ABSENT))
    boot: int = 1
    now: datetime = NOW
    starts: int = 0
    stops: int = 0
    clones: int = 0
    arrivals: int = 0
    forgotten: bool = False
    exits_at_once_with: int | None = None  # what it runs ends as soon as it is started
    refused_starts: int = 0  # starts that fail from now on
    crash_in: int | None = None  # moments until the agent is killed; None: it lives on

    # ---- the agent

    def plan(self) -> Plan:
        return plan(self.desired, self.memory, self.seen, boot_id=str(self.boot), now=self.now)

    def round(self) -> Plan:
        """Look, plan and act once; the plan."""
        what, seen = self.plan(), self.seen
        for step in what.steps:
            if step is Step.START:
                self.keep(
                    before_start(self.desired, self.memory, seen, what, boot_id=str(self.boot))
                )
            self.moment()
            if not self.carry_out(step):
                self.failed()
                return what
            if step is Step.FORGET:
                return what
            self.keep(after_step(step, self.desired, self.memory))
        if what.steps:
            self.keep(carried_out(self.desired, self.memory))
        return what

    def settle(self, rounds: int = ROUNDS) -> Plan:
        """Rounds until nothing is to be done now."""
        for _ in range(rounds):
            what = self.round()
            if not what.steps or self.forgotten:
                return what
        raise AssertionError(f"no convergence: {what} {self}")

    def settle_with_crashes(self, crashes: list[int]) -> Plan:
        for self.crash_in in crashes:
            try:
                self.settle()
            except Crash:
                continue
        self.crash_in = None
        return self.settle()

    def keep(self, memory: Memory) -> None:
        self.moment()
        self.memory = memory

    def failed(self) -> None:
        self.memory = after_failure(self.desired, self.memory, self.now)

    def moment(self) -> None:
        """Time passes, and the agent may die here."""
        self.now += timedelta(milliseconds=1)
        if self.crash_in is not None:
            if self.crash_in == 0:
                self.crash_in = None
                raise Crash
            self.crash_in -= 1

    # ---- the host

    def carry_out(self, step: Step) -> bool:
        """What a driver does: idempotent. Whether it succeeded."""
        state = self.seen.state
        match step:
            case Step.PREPARE:
                self.seen = self.seen if state is not Seen.ABSENT else Observation(Seen.PREPARED)
            case Step.CLONE:
                assert state in (Seen.ABSENT, Seen.PREPARED)
                self.clones += 1
                self.seen = Observation(Seen.PREPARED)
            case Step.ARRIVE:
                assert state in (Seen.ABSENT, Seen.PREPARED)
                self.arrivals += 1
                self.seen = Observation(Seen.PREPARED)
            case Step.START:
                return self.start()
            case Step.STOP if state in ALIVE:
                self.stops += 1
                self.exit(143)
            case Step.PAUSE:
                assert state in ALIVE or self.exits_at_once_with is not None
                if state is Seen.RUNNING:
                    self.seen = replace(self.seen, state=Seen.PAUSED)
            case Step.RESUME:
                assert state in ALIVE
                self.seen = replace(self.seen, state=Seen.RUNNING)
            case Step.UPDATE:
                assert state is not Seen.ABSENT
            case Step.DESTROY:
                self.seen = Observation(Seen.ABSENT)
            case Step.FORGET:
                assert state is Seen.ABSENT
                self.forgotten = True
        return True

    def start(self) -> bool:
        assert self.seen.state is not Seen.ABSENT
        if self.seen.state in ALIVE:
            return True
        never_ran = self.seen.state is Seen.PREPARED
        assert self.memory.cloned or self.desired.clone_of is None or not never_ran
        came = self.desired.arrival
        assert came is None or self.memory.arrived == came.id or not never_ran
        if self.refused_starts:
            self.refused_starts -= 1
            return False
        self.starts += 1
        self.seen = Observation(Seen.RUNNING, started_at=self.now)
        if self.exits_at_once_with is not None:
            self.exit(self.exits_at_once_with)
        return True

    def exit(self, code: int | None) -> None:
        self.seen = Observation(
            Seen.EXITED, code, started_at=self.seen.started_at, finished_at=self.now
        )

    def reboot(self) -> None:
        """Power is cut and comes back: the agent forgets nothing that it wrote."""
        self.boot += 1
        if self.seen.state in ALIVE:
            self.exit(None)

    # ---- the owner

    def ask(self, **changes: Any) -> None:
        generation = self.desired.generation + 1
        self.desired = self.desired.model_copy(update={"generation": generation, **changes})

    def ask_restart(self, *, new_generation: bool = True) -> None:
        generation = self.desired.generation + new_generation
        nonce = self.desired.restart_nonce + 1
        self.desired = self.desired.model_copy(
            update={"generation": generation, "restart_nonce": nonce}
        )


def running(restart: RestartPolicy = RestartPolicy.NEVER) -> World:
    world = World(desired(restart=restart))
    world.settle()
    assert world.seen.state is Seen.RUNNING
    return world


def is_as_desired(world: World, what: Plan) -> bool:
    """Nothing is to be done, and the state is the one asked for or what the policy leaves."""
    state = world.seen.state
    if world.desired.deleting:
        return world.forgotten
    if world.desired.state is PowerState.STOPPED:
        return state in (Seen.PREPARED, Seen.EXITED)
    if state is Seen.EXITED:
        policy = world.desired.spec.restart
        clean = world.seen.exit_code == 0
        left = policy is RestartPolicy.NEVER or (policy is RestartPolicy.ON_FAILURE and clean)
        return left or what.wait_until is not None
    return state is (Seen.PAUSED if world.desired.state is PowerState.PAUSED else Seen.RUNNING)


times = st.one_of(
    st.none(), st.integers(-100_000, 0).map(lambda seconds: NOW + timedelta(seconds=seconds))
)
memories = st.builds(
    Memory,
    applied_generation=st.integers(0, 3),
    restart_nonce=st.integers(0, 2),
    started=st.booleans(),
    starting=st.booleans(),
    previous_start=times,
    boot_id=st.sampled_from(["", "1", "2"]),
    restarts=st.integers(0, 40),
    failures=st.integers(0, 5),
    failed_generation=st.integers(0, 3),
    retry_at=times,
    cloned=st.booleans(),
    arrived=st.sampled_from(["", "m1"]),
)
observations = st.builds(
    Observation,
    state=st.sampled_from(Seen),
    exit_code=st.sampled_from([None, 0, 1, 137]),
    started_at=times,
    finished_at=times,
)
wishes = st.builds(
    desired,
    state=st.sampled_from(PowerState),
    restart=st.sampled_from(RestartPolicy),
    generation=st.integers(1, 3),
    restart_nonce=st.integers(0, 2),
    deleting=st.booleans(),
    clone_of=st.sampled_from([None, CloneSource(id="s", name="source")]),
    arrival=st.sampled_from([None, Arrival(id="m1")]),
).filter(lambda wish: wish.clone_of is None or wish.arrival is None)  # clones in the making stay
crash_points = st.lists(st.integers(0, 12), max_size=3)


@given(wishes, memories, observations)
def test_from_anywhere_it_converges_and_then_does_nothing(
    wish: DesiredWorkload, memory: Memory, seen: Observation
) -> None:
    world = World(wish, memory, seen)
    what = world.settle()
    assert is_as_desired(world, what)
    if not world.forgotten:
        assert world.plan() == what
        assert not what.steps


@given(wishes, memories, observations, crash_points)
def test_crashes_on_the_way_change_nothing(
    wish: DesiredWorkload, memory: Memory, seen: Observation, crashes: list[int]
) -> None:
    world = World(wish, memory, seen)
    what = world.settle_with_crashes(crashes)
    assert is_as_desired(world, what)
    assert world.starts <= 1
    assert world.stops <= 1


@given(state=st.sampled_from(PowerState), crashes=crash_points)
def test_a_clone_is_made_before_it_starts_and_never_again(
    state: PowerState, crashes: list[int]
) -> None:
    world = World(desired(state, clone_of=CloneSource(id="s", name="source")))
    world.settle_with_crashes(crashes)
    assert world.memory.cloned
    assert 1 <= world.clones <= 1 + len(crashes)
    made = world.clones
    world.ask(state=PowerState.STOPPED)
    world.settle()
    world.ask(state=PowerState.RUNNING, clone_of=None)
    world.settle()
    world.reboot()
    world.settle()
    assert world.clones == made


@given(state=st.sampled_from(PowerState), crashes=crash_points)
def test_what_came_is_taken_up_before_it_starts_and_never_again(
    state: PowerState, crashes: list[int]
) -> None:
    world = World(desired(state, arrival=Arrival(id="m1")))
    world.settle_with_crashes(crashes)
    assert world.memory.arrived == "m1"
    assert 1 <= world.arrivals <= 1 + len(crashes)
    made = world.arrivals
    world.ask(state=PowerState.RUNNING)
    world.reboot()
    world.settle()
    assert world.arrivals == made


@given(memories, observations, st.integers(1, 3))
def test_deleting_always_ends_in_forgetting(
    memory: Memory, seen: Observation, generation: int
) -> None:
    failing = replace(
        memory, failures=9, failed_generation=generation, retry_at=NOW + timedelta(hours=1)
    )
    for remembered in (memory, failing):
        world = World(desired(deleting=True, generation=generation), remembered, seen)
        world.settle()
        assert world.forgotten
        assert world.seen.state is Seen.ABSENT


@given(
    begin=st.sampled_from(["running", "paused", "ended", "failed"]),
    policy=st.sampled_from(RestartPolicy),
    crashes=crash_points,
    new_generation=st.booleans(),
)
def test_a_restart_happens_exactly_once(
    begin: str, policy: RestartPolicy, crashes: list[int], new_generation: bool
) -> None:
    world = running(policy)
    if begin == "paused":
        world.ask(state=PowerState.PAUSED)
        world.settle()
    elif begin in ("ended", "failed"):
        world.exit(0 if begin == "ended" else 1)
    before = world.starts
    world.ask_restart(new_generation=new_generation)
    world.settle_with_crashes(crashes)
    assert world.starts == before + 1
    assert world.seen.state is (Seen.PAUSED if begin == "paused" else Seen.RUNNING)
    world.settle()
    assert world.starts == before + 1


@given(
    asked=st.sampled_from(["create", "start", "restart", "reboot"]),
    code=st.integers(0, 1),
    crashes=crash_points,
)
def test_what_ends_at_once_and_is_never_restarted_runs_exactly_once(
    asked: str, code: int, crashes: list[int]
) -> None:
    world = World(desired(), exits_at_once_with=code)
    if asked != "create":
        world.settle()
        world.starts = 0
    if asked == "start":
        world.ask(state=PowerState.STOPPED)
        world.settle()
        world.ask(state=PowerState.RUNNING)
    elif asked == "restart":
        world.ask_restart()
    elif asked == "reboot":
        world.reboot()
    world.settle_with_crashes(crashes)
    assert world.starts == 1


@pytest.mark.parametrize("policy", RestartPolicy)
@pytest.mark.parametrize("state", [PowerState.RUNNING, PowerState.PAUSED])
@given(crashes=crash_points)
def test_a_reboot_starts_what_should_run_again_whatever_its_policy(
    policy: RestartPolicy, state: PowerState, crashes: list[int]
) -> None:
    world = running(policy)
    world.ask(state=state)
    world.settle()
    world.reboot()
    world.settle_with_crashes(crashes)
    assert world.starts == 2
    assert is_as_desired(world, world.plan())


def test_a_reboot_leaves_stopped_ones_stopped() -> None:
    world = running(RestartPolicy.ALWAYS)
    world.ask(state=PowerState.STOPPED)
    world.settle()
    world.reboot()
    world.settle()
    assert world.starts == 1
    assert world.seen.state is Seen.EXITED


@pytest.mark.parametrize("policy", RestartPolicy)
@pytest.mark.parametrize("seen", [Seen.RUNNING, Seen.EXITED])
def test_a_requested_restart_that_fails_is_tried_until_it_succeeds(
    policy: RestartPolicy, seen: Seen
) -> None:
    world = running(policy)
    if seen is Seen.EXITED:
        world.exit(0)
    world.ask_restart()
    world.refused_starts = 3
    waits = []
    while (what := world.settle()).wait_until is not None:
        waits.append(what.wait_until)
        world.now = what.wait_until
    assert len(waits) == 3
    assert world.starts == 2
    assert world.seen.state is Seen.RUNNING
    assert (world.memory.failures, world.memory.retry_at) == (0, None)


def test_a_failed_step_waits_but_a_new_generation_does_not() -> None:
    world = World(desired(), refused_starts=1)
    what = world.settle()
    assert what.wait_until == world.memory.retry_at
    assert what.reason
    world.ask(restart_nonce=1)
    assert world.settle().wait_until is None
    assert world.seen.state is Seen.RUNNING


@pytest.mark.parametrize(
    ("policy", "code", "comes_back"),
    [
        (RestartPolicy.NEVER, 0, False),
        (RestartPolicy.NEVER, 1, False),
        (RestartPolicy.ON_FAILURE, 0, False),
        (RestartPolicy.ON_FAILURE, 1, True),
        (RestartPolicy.ON_FAILURE, None, True),
        (RestartPolicy.ALWAYS, 0, True),
        (RestartPolicy.ALWAYS, 137, True),
    ],
)
def test_the_policy_decides_what_comes_back(
    policy: RestartPolicy, code: int | None, comes_back: bool
) -> None:
    world = running(policy)
    world.exit(code)
    what = world.settle()
    assert (what.wait_until is not None) is comes_back
    world.now += timedelta(seconds=1)
    world.settle()
    assert (world.seen.state is Seen.RUNNING) is comes_back
    assert world.memory.restarts == int(comes_back)


def delays(world: World, count: int) -> Iterator[float]:
    """Seconds that it waits after each of ``count`` quick failures."""
    for _ in range(count):
        world.exit(1)
        ended = world.now
        what = world.settle()
        assert what.wait_until is not None
        yield (what.wait_until - ended).total_seconds()
        world.now = what.wait_until
        world.settle()
        assert world.seen.state is Seen.RUNNING


def test_delays_double_up_to_five_minutes_and_a_steady_run_forgets_them() -> None:
    world = running(RestartPolicy.ON_FAILURE)
    assert list(delays(world, 10)) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    world.now += STEADY_AFTER
    assert list(delays(world, 2)) == [1, 2]
    world.exit(1)
    world.ask_restart()
    world.settle()
    assert world.memory.restarts == 0
    assert list(delays(world, 1)) == [1]


@given(st.integers(0, 10**6))
def test_delays_grow_and_have_an_end(number: int) -> None:
    assert 1 <= restart_delay(number) <= restart_delay(number + 1) <= 300
    assert 0.5 <= failure_delay(number) <= failure_delay(number + 1) <= 60


def test_an_update_of_a_running_one_is_one_step() -> None:
    world = running()
    world.ask()
    assert world.plan().steps == (Step.UPDATE,)
    world.settle()
    assert (world.starts, world.stops) == (1, 0)


class Life(RuleBasedStateMachine):
    """A workload's whole life: whatever happens, what is desired comes about."""

    world: World

    @initialize(policy=st.sampled_from(RestartPolicy), state=st.sampled_from(PowerState))
    def create(self, policy: RestartPolicy, state: PowerState) -> None:
        self.world = World(desired(state, policy))

    @rule(state=st.sampled_from(PowerState))
    def ask_state(self, state: PowerState) -> None:
        self.world.ask(state=state)

    @rule(new_generation=st.booleans())
    def ask_restart(self, new_generation: bool) -> None:
        self.world.ask_restart(new_generation=new_generation)

    @rule()
    def delete(self) -> None:
        self.world.ask(deleting=True)

    @precondition(lambda self: self.world.seen.state in ALIVE)
    @rule(code=st.sampled_from([None, 0, 1]))
    def exit(self, code: int | None) -> None:
        self.world.exit(code)

    @rule()
    def reboot(self) -> None:
        self.world.reboot()

    @rule(seconds=st.integers(1, 400))
    def wait(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule(crashes=crash_points)
    def work(self, crashes: list[int]) -> None:
        if not self.world.forgotten:
            self.world.settle_with_crashes(crashes)

    @rule(moments=st.integers(0, 10))
    def work_until_killed(self, moments: int) -> None:
        if self.world.forgotten:
            return
        self.world.crash_in = moments
        try:
            self.world.settle()
        except Crash:
            return
        self.world.crash_in = None

    @invariant()
    def nothing_runs_that_was_forgotten(self) -> None:
        assert not self.world.forgotten or self.world.seen.state is Seen.ABSENT

    def teardown(self) -> None:
        if hasattr(self, "world") and not self.world.forgotten:
            what = self.world.settle()
            assert is_as_desired(self.world, what)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


@given(wishes, memories, observations, st.booleans(), st.booleans())
def test_without_a_lease_no_highly_available_one_starts(
    wish: DesiredWorkload, memory: Memory, seen: Observation, ha: bool, lease: bool
) -> None:
    spec = wish.spec.model_copy(update={"ha": HaSpec(enabled=ha)})
    wish = wish.model_copy(update={"spec": spec})
    before = plan(wish, memory, seen, boot_id="b", now=NOW)
    what = held_back(before, wish, has_lease=lease, now=NOW)
    if Step.START not in before.steps or lease or not ha:
        assert what is before
    else:
        assert not what.steps
        assert what.wait_until is not None
