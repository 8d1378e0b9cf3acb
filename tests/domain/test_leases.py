"""How long heartbeats are gathered, and how often hosts without news sync, by the fleet's size."""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate, takewhile

from virtmgr.agent.pacing import Pace
from virtmgr.domain.leases import ROUTINE_A_SECOND, gather_seconds, routine_pause


def test_a_small_fleet_waits_a_moment_and_a_large_one_no_longer_than_a_quarter_second() -> None:
    assert gather_seconds(0, 1.0) == gather_seconds(1, 60.0) == 0.05
    assert gather_seconds(110, 1.0) == gather_seconds(550, 1.0) == gather_seconds(1, 0.0) == 0.25


def test_it_depends_on_how_many_come_and_not_on_how_long_they_were_gathered() -> None:
    assert gather_seconds(6, 0.1) == gather_seconds(15, 0.25)
    assert 0.05 < gather_seconds(15, 0.25) < 0.25


def test_hosts_that_came_up_at_once_do_not_sync_in_waves() -> None:
    hosts, dice = 3000, random.Random(1)
    pause = routine_pause(hosts)
    pace = Pace(allowed=pause)
    width = hosts / ROUTINE_A_SECOND / 12
    came: Counter[int] = Counter()
    for _ in range(hosts):
        gaps = (pause * pace.share(dice.random()) for _ in range(40))
        came.update(
            int(at / width) for at in takewhile(lambda at: at < 80 * width, accumulate(gaps))
        )
    rates = [came[slot] / width for slot in range(80)]
    assert max(rates) < 1.6 * ROUTINE_A_SECOND
    assert 0.9 < sum(rates[20:]) / 60 / ROUTINE_A_SECOND < 1.1
    assert min(rates[20:]) > 0.5 * ROUTINE_A_SECOND
