"""Live migration by its pure parts: two hosts and a control plane, each of which may die anywhere.

The world carries out what the parts decide. Whatever is lost, killed or late, the guest never runs
on two hosts, and where all go on in the end it runs on one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from virtmgr.domain.converging import Act, Sample, begin, consider
from virtmgr.domain.live_migration import after_report
from virtmgr.domain.migration import AT_SOURCE, Migration, MigrationMode, Phase
from virtmgr.domain.moving import at_its_host, at_target, left_behind
from virtmgr.domain.plan import Memory, Observation, Seen, Step, plan
from virtmgr.domain.remembering import (
    after_departure,
    after_step,
    arrived_live,
    before_start,
    carried_out,
    observed_move,
)
from virtmgr.domain.sync import DesiredWorkload, MigrationLimits
from virtmgr.domain.workload import Kind, PowerState, Reason, WorkloadSpec

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ENDS = ("gone", "lost_answer", "broke")
MOMENTS = ("begun", "ended", "kept", "told")


def wish(generation: int = 1) -> DesiredWorkload:
    spec = WorkloadSpec.model_validate(
        {"name": "vm1", "kind": "vm", "image": "x", "restart": "always"}
    )
    return DesiredWorkload(
        id="w", project="p", name="vm1", kind=Kind.VM, init=None, generation=generation,
        revision=1, spec=spec, state=PowerState.RUNNING,
    )  # fmt: skip


@dataclass
class Side:
    """A host: what its agent has been told and has on its disk, and what its runtime has.

    ``guest``: absent, stopped (its disks are there), whole (paused, all of it is here), running, or
    migrated (gone to the other host, as the runtime knows until it is restarted).
    """

    guest: str = "absent"
    memory: Memory = field(default_factory=Memory)
    desired: DesiredWorkload | None = None
    boot: int = 1

    def seen(self) -> Observation:
        states = {"running": Seen.RUNNING, "whole": Seen.PAUSED, "absent": Seen.ABSENT}
        return Observation(states.get(self.guest, Seen.EXITED), started_at=NOW, finished_at=NOW)


class Hosts(RuleBasedStateMachine):
    """One migration after another from ``source`` to ``target`` and back."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.generation = 1
        self.owner, self.other = Side("running"), Side()
        self.owner.memory = Memory(applied_generation=1, started=True, boot_id="1")
        self.owner.desired = wish()
        self.migration: Migration | None = None

    # ---- the control plane

    @property
    def sides(self) -> tuple[Side, Side]:
        """The migration's source and target."""
        taken = self.migration is not None and self.migration.phase not in (
            AT_SOURCE | {Phase.RETREATING}
        )
        return (self.other, self.owner) if taken else (self.owner, self.other)

    @rule()
    def move(self) -> None:
        if self.migration is None:
            self.number += 1
            self.migration = Migration(
                id=f"m{self.number}", workload_id="w", project_id="p", source_host_id="a",
                target_host_id="b", mode=MigrationMode.LIVE, phase=Phase.PREPARING,
                operation_id="o", ticket="t", created_at=NOW, updated_at=NOW,
            )  # fmt: skip

    @rule()
    def cancel(self) -> None:
        if self.migration is not None and self.migration.phase in AT_SOURCE:
            self.migration.cancelling = True
            if self.migration.phase is Phase.PREPARING:
                self.migration.phase = Phase.RETREATING

    @rule(by_source=st.booleans())
    def sync(self, by_source: bool) -> None:
        """A report and its answer, which are one transaction."""
        source, target = self.sides
        side = source if by_source else target
        self._note(side, by_source=by_source)
        self._tell(side)

    def _note(self, side: Side, *, by_source: bool) -> None:
        migration = self.migration
        if migration is None or side.desired is None:
            return
        said = observed_move(side.desired, side.memory, Reason(code="x", message="x"))
        if said is not None and said.id == migration.id:
            after = after_report(
                migration.phase, said, by_source=by_source, cancelling=migration.cancelling
            )
            if after is Phase.STARTING:
                self.owner, self.other = self.other, self.owner
                self.generation += 1
                migration.generation = self.generation
            migration.phase = after or migration.phase
        if migration.phase is Phase.STARTING and side is self.owner:
            applied = side.memory.applied_generation >= self.generation
            if applied and side.guest == "running":
                migration.phase = Phase.CLEANING

    def _tell(self, side: Side) -> None:
        migration, plain = self.migration, wish(self.generation)
        if side is self.owner:
            side.desired = at_its_host(plain, migration)
        elif migration is None:
            side.desired = None
        elif migration.phase in (Phase.STARTING, Phase.CLEANING):
            side.desired = left_behind(plain, migration)
        else:
            side.desired = at_target(plain, migration)

    # ---- the agents

    @rule(
        by_source=st.booleans(),
        end=st.sampled_from(ENDS),
        dies_at=st.sampled_from([*MOMENTS, None, None, None]),
    )
    def act(self, by_source: bool, end: str = "gone", dies_at: str | None = None) -> None:
        """An agent looks, plans and acts once.

        :param end: how a departure ends, if it is one.
        :param dies_at: the moment of it at which the agent is killed.
        """
        source, target = self.sides
        side, peer = (source, target) if by_source else (target, source)
        if side.desired is None:
            if side.guest in ("absent", "stopped", "migrated"):
                side.guest, side.memory = "absent", Memory()
            return
        what = plan(side.desired, side.memory, side.seen(), boot_id=str(side.boot), now=NOW)
        if not what.steps:
            return
        for step in what.steps:
            if step in (Step.DEPART, Step.SETTLE):
                if not self._depart(step, side, peer, end, dies_at):
                    return
                continue
            self._carry_out(step, side)
            if step is Step.FORGET:
                return
        side.memory = carried_out(side.desired, side.memory)

    def _carry_out(self, step: Step, side: Side) -> None:
        assert side.desired is not None
        if step is Step.DESTROY:
            side.guest = "absent"
        elif step is Step.FORGET:
            side.desired, side.memory = None, Memory()
            migration = self.migration
            if migration is not None and migration.phase in (Phase.CLEANING, Phase.RETREATING):
                self.migration = None
        elif step in (Step.START, Step.RESUME):
            if step is Step.START:
                seen = side.seen()
                found = plan(side.desired, side.memory, seen, boot_id=str(side.boot), now=NOW)
                side.memory = before_start(
                    side.desired, side.memory, seen, found, boot_id=str(side.boot)
                )
            side.guest = "running"
        elif step in (Step.STOP, Step.PREPARE):
            side.guest = "stopped"
        side.memory = after_step(step, side.desired, side.memory)

    def _depart(self, step: Step, side: Side, peer: Side, end: str, dies_at: str | None) -> bool:
        """Whether the agent has lived through it."""
        assert side.desired is not None
        outgoing = side.desired.outgoing
        assert outgoing is not None
        expected = peer.desired is not None and peer.desired.incoming is not None
        if step is Step.DEPART:
            side.memory = replace(side.memory, departing=outgoing.id)
            if dies_at == "begun":
                return False
            if expected and peer.guest == "absent" and end in ("gone", "lost_answer"):
                peer.guest = "whole"
                if end == "gone":
                    side.guest = "migrated"
            if dies_at == "ended":
                return False
        departed = side.guest == "migrated" and side.memory.departing == outgoing.id
        side.memory = after_departure(side.memory, outgoing.id, departed=departed)
        if dies_at == "kept" or not departed or step is Step.SETTLE:
            return dies_at != "kept"
        if expected and peer.guest == "whole":  # the target's agent lets it run
            assert peer.desired is not None
            assert peer.desired.incoming is not None
            peer.guest = "running"
            if dies_at != "told":  # else it is the target's agent that dies before it is kept
                id = peer.desired.incoming.id
                peer.memory = arrived_live(peer.memory, id, boot_id=str(peer.boot))
        return True

    @rule(end=st.sampled_from(ENDS), dies_at=st.sampled_from([*MOMENTS, None]))
    def go_on(self, end: str, dies_at: str | None) -> None:
        """Both sides a little further, to where it is interesting."""
        self.move()
        for by_source in (False, True):
            self.sync(by_source)
            self.act(by_source, end, dies_at)
            self.never_two()

    # ---- what goes wrong

    @rule(by_source=st.booleans())
    def power_cut(self, by_source: bool) -> None:
        """The guest is gone; what is on disks stays. Nobody knows any more how it ended."""
        side = self.sides[0 if by_source else 1]
        side.boot += 1
        if side.guest != "absent":
            side.guest = "stopped"

    @invariant()
    def never_two(self) -> None:
        assert [self.owner.guest, self.other.guest].count("running") < 2

    def teardown(self) -> None:
        """All go on: then it ends, and the guest runs where it belongs."""
        for _ in range(12):
            for by_source in (True, False):
                self.sync(by_source)
                self.never_two()
                self.act(by_source)
                self.never_two()
        assert self.migration is None
        assert (self.owner.guest, self.other.guest) == ("running", "absent")


TestHosts = Hosts.TestCase
TestHosts.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# ---- convergence


def sample(iteration: int) -> Sample:
    return Sample(
        total=100, done=50, remaining=50, disks_remaining=0, iteration=iteration, dirty_rate=1 << 20
    )


@pytest.mark.parametrize("pause", [True, False])
def test_a_guest_that_writes_too_fast_is_allowed_more_then_stopped(pause: bool) -> None:
    tactics = begin(MigrationLimits(downtime=100, steps=3, pause=pause))
    acts, downtimes = [], []
    for iteration in range(60):
        tactics, act = consider(tactics, sample(iteration))
        if act is not Act.WAIT:
            acts.append(act)
            downtimes.append(tactics.downtime)
    assert acts == [Act.ALLOW_DOWNTIME] * 4 + [Act.PAUSE if pause else Act.GIVE_UP]
    assert downtimes == [100, 200, 400, 800, 800]
    assert "800 ms" in tactics.words(sample(60))


def test_one_that_converges_is_left_alone() -> None:
    tactics, act = consider(begin(MigrationLimits()), sample(0))
    assert act is Act.ALLOW_DOWNTIME  # what its cluster allows
    for iteration in range(5):
        tactics, act = consider(tactics, sample(iteration))
        assert act is Act.WAIT
