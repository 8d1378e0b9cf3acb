"""How far a drain is."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.draining import standing
from virtmgr.domain.migration import STEPS, Phase

_PHASES = st.lists(st.sampled_from(Phase), min_size=1, max_size=9)


def test_what_is_away_and_what_is_leaving_is_told_apart() -> None:
    far = standing({Phase.DONE: 2, Phase.CLEANING: 1, Phase.COPYING: 2, Phase.PLANNED: 2})
    assert far.message == "3 of 7 moved, 2 on their way"
    assert 3 / 7 < far.progress < 5 / 7
    assert standing({Phase.FAILED: 1, Phase.STARTING: 1}).message == (
        "0 of 2 moved, 1 on its way, 1 stayed"
    )


@given(_PHASES)
def test_each_workload_is_counted_once(phases: list[Phase]) -> None:
    far = standing(Counter(phases))
    planned = phases.count(Phase.PLANNED)
    assert far.total == len(phases) == far.moved + far.on_their_way + far.stayed + planned
    assert far.ended == all(
        phase in (Phase.DONE, Phase.FAILED, Phase.RETREATING) for phase in phases
    )


@given(_PHASES, st.data())
def test_every_step_of_a_migration_brings_the_drain_forward(
    phases: list[Phase], data: st.DataObject
) -> None:
    index = data.draw(st.sampled_from(range(len(phases))))
    for after in STEPS[phases[index]]:
        later = [*phases[:index], after, *phases[index + 1 :]]
        assert standing(Counter(later)).progress >= standing(Counter(phases)).progress
