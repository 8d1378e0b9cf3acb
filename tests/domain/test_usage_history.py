"""Averages are what was used divided by the time, whatever was measured when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.usage_history import (
    MINUTE,
    QUARTER,
    Measured,
    UsagePoint,
    UsageSlice,
    averaged,
    end_of_step,
    is_kept,
    joined,
    step_for,
)
from virtmgr.domain.workload import Usage

BEGIN = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
END = BEGIN + timedelta(minutes=1)


def usage(second: float, **fields: float) -> Usage:
    return Usage.model_validate({"at": BEGIN + timedelta(seconds=second), **fields})


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 4)), min_size=1, max_size=20))
def test_the_average_is_all_that_was_used_over_all_the_time(steps: list[tuple[int, float]]) -> None:
    second, used = 0, 0.0
    measured = [Measured(BEGIN, workloads={"w": usage(0)})]
    for seconds, cpus in steps:
        second, used = second + seconds, used + seconds * cpus
        measured.append(
            Measured(
                BEGIN + timedelta(seconds=second),
                workloads={"w": usage(second, cpu_seconds=used, memory=second)},
            )
        )
    point = averaged(measured, END).workloads["w"]
    assert point.cpus == pytest.approx(used / second, abs=1e-3)
    assert 0 < point.memory <= second


def test_what_began_anew_is_not_counted_backwards() -> None:
    moments = [
        usage(0, cpu_seconds=100, network_sent=10_000),
        usage(10, cpu_seconds=110, network_sent=11_000),
        usage(20, cpu_seconds=1, network_sent=0),
        usage(30, cpu_seconds=6, network_sent=500),
    ]
    point = averaged([Measured(one.at, host=one) for one in moments], END).host
    assert point is not None
    assert point.cpus == 0.75  # 15 seconds of CPU in the 20 seconds that are known
    assert point.network_sent == 75


def test_one_measurement_has_memory_and_no_rates() -> None:
    alone = [Measured(BEGIN), Measured(BEGIN, workloads={"w": usage(5, memory=7, disk=9)})]
    assert averaged(alone, END).workloads == {"w": UsagePoint(memory=7, disk=9)}
    assert averaged(alone[1:], END) == UsageSlice(end=END, seconds=MINUTE)


points = st.builds(
    UsagePoint,
    cpus=st.none() | st.floats(0, 100),
    memory=st.integers(0, 2**40),
    disk=st.integers(0, 2**40),
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), points), min_size=1, max_size=15))
def test_a_quarter_lies_between_its_minutes(minutes: list[dict[str, UsagePoint]]) -> None:
    slices = [UsageSlice(end=END, seconds=MINUTE, workloads=one) for one in minutes]
    whole = joined(slices, END)
    assert whole.seconds == QUARTER
    assert whole.workloads.keys() == {id for one in minutes for id in one}
    for id, point in whole.workloads.items():
        known = [one[id].cpus for one in minutes if id in one and one[id].cpus is not None]
        assert (point.cpus is None) == (not known)
        if point.cpus is not None:
            assert min(known) - 1e-3 <= point.cpus <= max(known) + 1e-3


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), st.sampled_from([MINUTE, QUARTER]))
def test_steps_end_on_the_clock_after_what_is_in_them(at: datetime, seconds: int) -> None:
    at = at.replace(tzinfo=UTC)
    end = end_of_step(at, seconds)
    assert timedelta(0) < end - at <= timedelta(seconds=seconds)
    assert end.timestamp() % seconds == 0


def test_what_is_kept() -> None:
    def kept(seconds: int, **ago: float) -> bool:
        return is_kept(UsageSlice(end=END - timedelta(**ago), seconds=seconds), END)

    assert kept(MINUTE, minutes=60)
    assert not kept(MINUTE, hours=2)
    assert kept(QUARTER, hours=24)
    assert not kept(QUARTER, hours=26)
    assert not kept(QUARTER, hours=-1)  # its clock is wrong
    assert not kept(7, minutes=1)
    assert step_for(END - timedelta(hours=1), END) == MINUTE
    assert step_for(END - timedelta(hours=2), END) == QUARTER
