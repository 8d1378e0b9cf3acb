"""Traces: that they are repeatable, that they have the statistics they promise, and the readers."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.traces import alibaba, azure
from bench.traces.model import Arrival, Machine, Trace
from bench.traces.synthetic import (
    DAY,
    HOUR,
    LARGEST_GROUP,
    MODELS,
    RATIOS,
    SHORT,
    VCPUS,
    Recipe,
    lives_of,
    make,
    strength,
)

recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    machines=st.integers(1, 30),
    days=st.floats(0.1, 3.0),
    load=st.floats(0.1, 0.9),
    alike=st.booleans(),
)


@settings(max_examples=20)
@given(recipes)
def test_a_trace_is_its_recipe(recipe: Recipe) -> None:
    trace = make(recipe)
    assert trace == make(recipe)
    assert len(trace.machines) == recipe.machines
    assert {(m.vcpus, m.memory) for m in trace.machines} <= set(MODELS)
    assert len({one.name for one in trace.arrivals}) == len(trace.arrivals)
    for one in trace.arrivals:
        assert one.vcpus in VCPUS
        assert one.memory / one.vcpus in RATIOS
        assert 0 <= one.at < trace.seconds
        assert one.at < one.ends
    groups = Counter(one.group for one in trace.arrivals if one.group)
    assert all(2 <= size <= LARGEST_GROUP for size in groups.values())
    by_name = {one.name: one for one in trace.arrivals}
    for resize in trace.resizes:
        assert by_name[resize.name].at <= resize.at <= by_name[resize.name].ends
        assert resize.vcpus >= 1
    names = {machine.name for machine in trace.machines}
    assert all(drain.machine in names and drain.at < drain.ends for drain in trace.drains)


@pytest.mark.parametrize("seed", range(3))
def test_most_are_short_and_the_long_ones_have_most_of_the_time(seed: int) -> None:
    lives = lives_of(np.random.default_rng(seed), 50_000)
    assert np.mean(lives < HOUR) == pytest.approx(SHORT, abs=0.01)
    assert lives[lives >= 30 * DAY].sum() > 0.5 * lives.sum()
    assert lives.min() >= 30


@pytest.mark.parametrize("seed", range(3))
def test_what_is_asked_is_near_the_load_that_was_wished(seed: int) -> None:
    trace = make(Recipe(seed=seed, machines=200, days=2, load=0.6))
    moments = np.linspace(0, trace.seconds, 50)
    shares = []
    for resource in ("vcpus", "memory"):
        there = sum(getattr(machine, resource) for machine in trace.machines)
        asked = [
            sum(getattr(one, resource) for one in trace.arrivals if one.at <= at < one.ends)
            for at in moments
        ]
        shares.append(np.mean(asked) / there)
    assert max(shares) == pytest.approx(0.6, rel=0.15)


def test_they_come_by_day_and_in_the_week() -> None:
    trace = make(Recipe(seed=1, machines=400, days=14))
    came = [one.at for one in trace.arrivals if one.at > 0]
    by_day = sum(6 <= at % DAY / HOUR < 18 for at in came)
    assert by_day > 0.6 * len(came)
    weekend = sum(at // DAY % 7 >= 5 for at in came)
    assert 0.1 < weekend / len(came) < 0.25  # two days of seven, each weaker
    assert strength(12 * HOUR) > 2 * strength(0)


def test_they_come_in_bursts() -> None:
    trace = make(Recipe(seed=1, machines=200, days=3))
    together = Counter((one.at, one.vcpus, one.memory) for one in trace.arrivals if one.at > 0)
    assert sum(number > 1 for number in together.values()) > 0.08 * len(together)
    assert any(one.group for one in trace.arrivals)
    assert trace.resizes
    assert trace.drains


def test_the_azure_packing_trace(tmp_path: Path) -> None:
    file = tmp_path / "packing.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE vmType (id INTEGER, vmTypeId INTEGER, machineId INTEGER, core REAL,
                memory REAL, hdd REAL, ssd REAL, nic REAL);
            CREATE TABLE vm (vmId INTEGER, tenantId INTEGER, vmTypeId INTEGER, priority INTEGER,
                starttime REAL, endtime REAL);
            INSERT INTO vmType VALUES (1, 10, 16, 0.5, 0.25, 0, 0.1, 0.1),
                (2, 11, 16, 1, 1, 0, 0, 0), (3, 12, 17, 0.5, 0.5, 0, 0, 0);
            INSERT INTO vm VALUES (1, 7, 10, 0, -3.5, 2.0), (2, 7, 11, 1, 0.5, NULL),
                (3, 8, 12, 0, 1.0, 2.0), (4, 8, 10, 0, -4.0, -1.0), (5, 8, 10, 0, 9.0, 9.5);
            """
        )
    trace = azure.read(file, machines=2, days=8)
    assert [machine.name for machine in trace.machines] == ["m00000", "m00001"]
    assert trace.arrivals == (
        Arrival("1", 0.0, 2 * DAY, 32.0, 64.0),
        Arrival("2", 0.5 * DAY, 90 * DAY, 64.0, 256.0),
    )
    assert [one.name for one in azure.read(file, 1, 14, model=17).arrivals] == ["3"]


def test_an_azure_trace_without_types(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE vmType (vmTypeId INTEGER, machineId INTEGER)")
    with pytest.raises(ValueError, match="vmType is empty"):
        azure.read(tmp_path / "empty.sqlite", machines=1)


def test_the_alibaba_trace(tmp_path: Path) -> None:
    (tmp_path / "machine_meta.csv").write_text(
        "m_1932,0,1,2,96,100,USING\n"
        "m_1932,10,1,2,96,100,USING\n"
        "m_7,5,3,4,64,50,USING\n"
        "m_8,5,3,4,,,USING\n"
        "m_9,5,3,4,96,-1,USING\n"
    )
    (tmp_path / "container_meta.csv").write_text(
        "c_2,m_7,300,app_1,started,800,800,3.12\n"
        "c_1,m_1932,0,app_1,started,400,800,1.56\n"
        "c_1,m_1932,86400,app_1,stopped,400,800,1.56\n"
        "c_1,m_1932,90000,app_1,stopped,400,800,1.56\n"  # told again
        "c_3,m_7,20,,allocated,400,400,1.56\n"
    )
    trace = alibaba.read(tmp_path)
    assert trace.machines == (
        Machine("m_1932", 96, 512, "1", "2"),
        Machine("m_7", 64, 256, "3", "4"),
    )
    first, third, second = trace.arrivals
    assert (first.name, first.at, first.ends, first.vcpus, first.group) == (
        "c_1", 0, 86400, 4, "app_1",
    )  # fmt: skip
    assert first.memory == pytest.approx(7.9872)
    assert (third.name, third.group) == ("c_3", None)
    assert second.ends > trace.seconds
    assert isinstance(trace, Trace)


def test_alibaba_containers_that_stop_and_run_again_or_stop_at_no_time(tmp_path: Path) -> None:
    (tmp_path / "machine_meta.csv").write_text("m_1,0,1,2,96,100,USING\n")
    (tmp_path / "container_meta.csv").write_text(
        "again,m_1,0,app,started,400,400,1.56\n"
        "again,m_1,100,app,stopped,400,400,1.56\n"
        "again,m_1,200,app,started,400,400,1.56\n"
        "again,m_1,300,app,stopped,400,400,1.56\n"
        "again,m_1,400,app,stopped,400,400,1.56\n"
        "later,m_1,0,app,stopped,400,400,1.56\n"  # 0: before the trace, or after it
        "later,m_1,50,app,started,400,400,1.56\n"
        "never,m_1,0,app,stopped,400,400,1.56\n"
        "odd,m_1,0,app,started,400,400,101\n"
    )
    trace = alibaba.read(tmp_path)
    assert [(one.name, one.at, one.ends) for one in trace.arrivals] == [
        ("again", 0, 300),
        ("later", 50, 2 * trace.seconds),
    ]
