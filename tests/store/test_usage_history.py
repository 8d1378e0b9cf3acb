"""What was used is found again by host and by workload, and goes when it is old."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.inventory import NOW, Inventory
from virtmgr.domain.ids import new_id
from virtmgr.domain.usage_history import MINUTE, UsagePoint, UsageSlice
from virtmgr.store import usage_points
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

numbers = st.none() | st.floats(0, 2**50, width=32)
points = st.builds(
    UsagePoint,
    cpus=numbers,
    memory=st.integers(0, 2**24),
    disk=st.integers(0, 2**24),
    disk_read=numbers,
    network_sent=numbers,
)


@given(st.none() | points, st.lists(points, max_size=5))
def test_points_are_unpacked_as_they_were(host: UsagePoint | None, found: list[UsagePoint]) -> None:
    workloads = {new_id(): point for point in found}
    content = usage_points.packed(
        UsageSlice(end=NOW, seconds=MINUTE, host=host, workloads={**workloads, "no id": found[0]})
        if found
        else UsageSlice(end=NOW, seconds=MINUTE, host=host)
    )
    assert usage_points.find(content, None) == host
    for id, point in workloads.items():
        assert usage_points.find(content, id) == point
    assert usage_points.find(content, new_id()) is None


def test_bytes_of_an_id_among_the_numbers_are_no_record() -> None:
    """Zeros are the host's id, and what is not used."""
    idle = UsageSlice(end=NOW, seconds=MINUTE, workloads={new_id(): UsagePoint(cpus=0)})
    assert usage_points.find(usage_points.packed(idle), None) is None


def test_history(units: SqlUnitOfWorkFactory) -> None:
    made, id = Inventory(), new_id()
    other = made.make_host(name="host2")
    slices = [
        UsageSlice(
            end=NOW.replace(microsecond=0) + timedelta(minutes=n),
            seconds=MINUTE,
            host=UsagePoint(cpus=n),
            workloads={id: UsagePoint(memory=n)} if n < 4 else {},
        )
        for n in range(6)
    ]
    with units() as uow:
        made.save(uow)
        uow.hosts.add(other)
        uow.usage_history.add(made.host.id, slices[:4])
        uow.usage_history.add(made.host.id, slices[2:])  # some of it was not answered
        uow.usage_history.add(
            other.id, [slices[4].model_copy(update={"workloads": {id: UsagePoint(memory=4)}})]
        )
        uow.commit()
    with units(read_only=True) as uow:
        found = uow.usage_history.points([made.host.id], None, MINUTE, slices[1].end)
        assert [point.point.cpus for point in found] == [2, 3, 4, 5]
        both = uow.usage_history.points([made.host.id, other.id], id, MINUTE, slices[0].end)
        assert [point.point.memory for point in both] == [1, 2, 3, 4]
        assert [point.end for point in both] == [one.end for one in slices[1:5]]
        assert uow.usage_history.points([other.id], None, 7, slices[0].end) == []
    with units() as uow:
        uow.usage_history.purge(MINUTE, slices[5].end)
        uow.commit()
        left = uow.usage_history.points([made.host.id], None, MINUTE, NOW - timedelta(days=1))
        assert [point.point.cpus for point in left] == [5]
        uow.hosts.remove(made.host)
        uow.commit()
        assert uow.usage_history.points([made.host.id], None, MINUTE, slices[0].end) == []


@pytest.mark.parametrize("workload", ["not-an-id"])
def test_only_ids_are_kept(workload: str) -> None:
    one = UsageSlice(end=NOW, seconds=MINUTE, workloads={workload: UsagePoint()})
    assert usage_points.packed(one) == b""
