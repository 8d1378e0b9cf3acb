"""Minutes and quarters of what was used, kept until they were answered; what a host uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from virtmgr.agent.host_usage import (
    busy_seconds,
    host_usage,
    memory_used,
    network_bytes,
)
from virtmgr.agent.usage_recorder import UsageRecorder
from virtmgr.domain.usage_history import MINUTE, QUARTER, Measured, UsageSlice
from virtmgr.domain.workload import Usage

BEGIN = datetime(2026, 1, 1, 12, 0, 5, tzinfo=UTC)


def record(recorder: UsageRecorder, minutes: float, begin: datetime = BEGIN) -> None:
    """Measure every ten seconds: half a CPU is used."""
    for number in range(int(minutes * 6) + 1):
        at = begin + timedelta(seconds=10 * number)
        counted = Usage(at=at, cpu_seconds=(at - BEGIN).total_seconds() / 2, memory=100)
        recorder.note(Measured(at, host=counted, workloads={"w": counted}))


def taken(recorder: UsageRecorder) -> list[UsageSlice]:
    """All, as several syncs take them."""
    found: list[UsageSlice] = []
    while some := recorder.take():
        found += some
        recorder.acknowledge(some)
    return found


def test_minutes_and_quarters() -> None:
    recorder = UsageRecorder()
    record(recorder, 31)
    slices = taken(recorder)
    minutes = [one for one in slices if one.seconds == MINUTE]
    quarters = [one for one in slices if one.seconds == QUARTER]
    assert [one.end.minute for one in minutes] == list(range(1, 32))
    assert [one.end.minute for one in quarters] == [15, 30]
    for one in slices:
        assert one.workloads["w"].cpus == 0.5
        assert one.host == one.workloads["w"]


def test_what_was_not_answered_is_said_again() -> None:
    recorder = UsageRecorder()
    record(recorder, 3)
    first = recorder.take()
    assert [one.end.minute for one in first] == [1, 2, 3]
    assert recorder.take() == first
    recorder.acknowledge(first[:1])
    assert recorder.take() == first[1:]
    record(recorder, 300, BEGIN + timedelta(minutes=4))
    kept = taken(recorder)
    assert len(kept) == 80
    assert kept[-1].end == BEGIN.replace(second=0) + timedelta(minutes=304)


def test_a_clock_that_jumps() -> None:
    recorder = UsageRecorder()
    record(recorder, 2)
    record(recorder, 2, BEGIN - timedelta(hours=1))  # set back
    record(recorder, 2, BEGIN + timedelta(hours=5))  # slept
    ends = [one.end for one in taken(recorder) if one.seconds == MINUTE]
    assert ends[-2:] == [BEGIN.replace(hour=17, minute=n, second=0) for n in (1, 2)]


def test_what_a_host_uses(tmp_path: Path) -> None:
    assert busy_seconds("cpu  100 10 50 900 40 3 7 20 60 0\ncpu0 …\n", 100) == 1.9
    assert memory_used("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n") == 600 * 1024
    table = "head\nhead\n" + "".join(
        f" {name}: {n} 0 0 0 0 0 0 0 {10 * n} 0 0 0 0 0 0 0\n"
        for n, name in enumerate(("lo", "eth0", "br0"), start=1)
    )
    assert network_bytes(table, {"eth0"}) == (2, 20)
    assert network_bytes(table, set()) == (5, 50)
    here = host_usage(tmp_path)
    assert here.cpu_seconds > 0
    assert here.memory > 0
    assert here.disk > 0
