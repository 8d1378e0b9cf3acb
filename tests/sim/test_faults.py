"""What goes wrong in a simulated fleet is read from text, and happens to hosts that are well."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.errors import InvalidRequest
from virtmgr.sim.faults import ALL, Fault, Kind, in_order, parse, parse_command, victims


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50@60s", (50, 60.0, None)),
        ("50@60", (50, 60.0, None)),
        ("1@1.5m+30s", (1, 90.0, 30.0)),
        ("all@1h+2m", (ALL, 3600.0, 120.0)),
    ],
)
def test_faults_of_options(text: str, expected: tuple[int, float, float | None]) -> None:
    assert parse(Kind.LOSE, text) == Fault(Kind.LOSE, *expected)


def test_faults_of_standard_input() -> None:
    assert parse_command("lose 50", 7.0) == Fault(Kind.LOSE, 50, 7.0)
    assert parse_command(" partition all 30s\n", 7.0) == Fault(Kind.PARTITION, ALL, 7.0, 30.0)


@pytest.mark.parametrize("text", ["", "50", "@60s", "50@", "-1@3", "50@60d", "50@60s+"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="COUNT@SECONDS"):
        parse(Kind.PARTITION, text)


@pytest.mark.parametrize("text", ["", "lose", "lose some", "lose 5 5x", "win 5", "lose 50@3"])
def test_what_is_no_command_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="does not know"):
        parse_command(text, 0.0)


@given(st.integers(-1, 30), st.sets(st.integers(0, 40)), st.integers())
def test_victims_are_well_and_as_many_as_there_are(count: int, well: set[int], seed: int) -> None:
    fault = Fault(Kind.LOSE, count, 0.0)
    found = victims(fault, sorted(well), random.Random(seed))
    assert set(found) <= well
    assert len(found) == len(set(found)) == (len(well) if count == ALL else min(count, len(well)))
    assert found == victims(fault, sorted(well), random.Random(seed)), "by its seed"


def test_the_order_of_faults() -> None:
    faults = [Fault(Kind.LOSE, 1, 9.0), Fault(Kind.RESTART, 1, 3.0)]
    assert [fault.at for fault in in_order(faults)] == [3.0, 9.0]
