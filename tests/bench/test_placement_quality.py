"""The measuring itself: every policy obeys the rules, and no packing beats the bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.packing_bounds import bound_of
from bench.placement_moves import HOURLY, MOVING, Moving, Rounds
from bench.placement_policies import (
    POLICIES,
    Shares,
    kubernetes_least_allocated,
    kubernetes_most_allocated,
    nomad_binpack,
)
from bench.placement_quality import task
from bench.placement_replay import Replay
from bench.traces.model import Arrival, Drain, Machine, Resize, Trace
from bench.traces.synthetic import Recipe, make

_ALL = {**POLICIES, **MOVING}
_TWO = (Machine("a", 8, 32, "z", "r"), Machine("b", 8, 32, "z", "r"))


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from(sorted(_ALL)))
def test_nothing_is_put_where_it_does_not_fit(seed: int, name: str) -> None:
    trace = make(Recipe(seed=seed, machines=8, days=0.3, load=0.9))
    bound, _ = bound_of(trace)
    figures = Replay(trace, _ALL[name], bound).run()  # raises otherwise
    assert figures.seconds == pytest.approx(trace.seconds)
    assert figures.bound <= figures.used + 1e-6
    assert figures.arrived == len(trace.arrivals)
    assert 0 <= figures.mean(figures.stranded) <= 1


@pytest.mark.parametrize("name", sorted(_ALL))
def test_fewest_is_not_below_the_bound(name: str) -> None:
    trace = make(Recipe(seed=1, machines=30, days=0.3, load=0.3, alike=True))
    one = task(trace)
    assert one.at_peak <= one.fewest(_ALL[name]) <= 30


@pytest.mark.parametrize("name", sorted(_ALL))
def test_groups_drains_and_sizes(name: str) -> None:
    trace = Trace(
        machines=_TWO,
        arrivals=(
            Arrival("one", 0, 100, 4, 16, "g"),
            Arrival("two", 1, 100, 4, 16, "g"),
            Arrival("three", 2, 100, 4, 16, "g"),  # there is no third machine
            Arrival("four", 50, 100, 8, 8),  # not while there are others
            Arrival("five", 110, 200, 8, 8),
        ),
        seconds=300,
        resizes=(Resize("one", 10, 8, 32), Resize("five", 150, 1, 1)),
        drains=(Drain("a", 120, 130), Drain("b", 140, 145)),
    )
    figures = Replay(trace, _ALL[name]).run()
    assert figures.refused == {4: 1, 8: 1}
    assert figures.moves >= 1


def _halves(group: str | None) -> Trace:
    """Two machines, half full, since what stood beside has left."""
    return Trace(
        machines=_TWO,
        arrivals=(
            Arrival("one", 0, 9000, 4, 16, group),
            Arrival("left", 0, 1000, 4, 16),
            Arrival("two", 500, 9000, 4, 16, group),
        ),
        seconds=9000,
    )


def test_rebalancing_empties_a_machine_in_its_next_round() -> None:
    trace = _halves(None)
    figures = Replay(trace, _ALL[HOURLY], bound_of(trace)[0]).run()
    assert figures.rebalanced == 1
    assert figures.used == 500 + 2 * 3100 + (9000 - 3600)
    assert figures.bound == 2 * 500 + 500 + 8000
    assert figures.workloads == 9000 + 1000 + 8500


def test_rebalancing_leaves_apart_what_has_to_be() -> None:
    assert Replay(_halves("g"), _ALL[HOURLY]).run().rebalanced == 0


def test_a_round_has_no_more_moves_than_it_may() -> None:
    trace = make(Recipe(seed=3, machines=20, days=0.5, load=0.5))
    one = Replay(trace, lambda machines: Moving(machines, Rounds(every=3600.0, most_moves=3))).run()
    assert 0 < one.rebalanced <= 3 * 11


def test_the_scores_that_others_have_published() -> None:
    shares = Shares(np.array([1.0, 0.0, 0.5]), np.array([1.0, 0.0, 0.25]))
    assert nomad_binpack(shares) == pytest.approx([18, 0, 20 - 10**0.5 - 10**0.75])
    assert list(kubernetes_most_allocated(shares)) == [200, 100, 37 + 87]
    assert list(kubernetes_least_allocated(shares)) == [100, 200, 62 + 87]
