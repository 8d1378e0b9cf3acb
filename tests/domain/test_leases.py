"""How long heartbeats are gathered: longer in a large fleet, and never long."""

from __future__ import annotations

from virtmgr.domain.leases import gather_seconds


def test_a_small_fleet_waits_a_moment_and_a_large_one_no_longer_than_a_quarter_second() -> None:
    assert gather_seconds(0, 1.0) == gather_seconds(1, 60.0) == 0.05
    assert gather_seconds(110, 1.0) == gather_seconds(550, 1.0) == gather_seconds(1, 0.0) == 0.25


def test_it_depends_on_how_many_come_and_not_on_how_long_they_were_gathered() -> None:
    assert gather_seconds(6, 0.1) == gather_seconds(15, 0.25)
    assert 0.05 < gather_seconds(15, 0.25) < 0.25
