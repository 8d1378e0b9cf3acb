"""How far a plan that is carried out is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.migration import STEPS, Phase
from virtmgr.domain.rebalancing.running import Course, PlannedMove, standing

_FATES = st.lists(st.one_of(st.none(), st.sampled_from(Phase)), min_size=1, max_size=9)


def _course(fates: list[Phase | None]) -> tuple[Course, dict[str, Phase]]:
    """Moves, each in a phase or not begun; and the phases by their migrations."""
    moves = tuple(
        PlannedMove(
            workload_id=f"w{index}",
            workload_name=f"web-{index}",
            source_id="h1",
            target_id="h2",
            migration_id=f"m{index}" if phase is not None else None,
        )
        for index, phase in enumerate(fates)
    )
    phases = {f"m{index}": phase for index, phase in enumerate(fates) if phase is not None}
    return Course(moves=moves), phases


def test_what_is_on_its_way_is_told() -> None:
    far = standing(*_course([Phase.DONE, Phase.COPYING, None]))
    assert far.message == "1 of 3 workloads moved, 1 on its way"
    assert 1 / 3 < far.progress < 2 / 3
    assert standing(*_course([Phase.DONE])).message == "1 of 1 workload moved"
    assert standing(*_course([Phase.FAILED, Phase.STARTING, Phase.MIGRATING])).message == (
        "0 of 3 workloads moved, 2 on their way; 1 stayed: web-0"
    )


@given(_FATES)
def test_each_workload_is_counted_once(fates: list[Phase | None]) -> None:
    far = standing(*_course(fates))
    told = far.moved + far.on_their_way + len(far.stayed) + len(far.waiting)
    assert told == far.total == len(fates)
    assert far.room == max(0, 2 - far.on_their_way)


@given(_FATES, st.data())
def test_every_step_of_a_migration_brings_it_forward(
    fates: list[Phase | None], data: st.DataObject
) -> None:
    index = data.draw(st.sampled_from(range(len(fates))))
    phase = fates[index]
    for after in (Phase.PLANNED,) if phase is None else STEPS[phase]:
        later = [*fates[:index], after, *fates[index + 1 :]]
        assert standing(*_course(later)).progress >= standing(*_course(fates)).progress
