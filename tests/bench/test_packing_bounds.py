"""The bounds: no packing beats them, and shapes tell more than sums do."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.packing_bounds import bound_of, volume_bound
from bench.packing_prices import fill
from bench.traces.model import Arrival, Machine, Resize, Trace

_MODELS = ((8, 12), (5, 20))
sizes = st.lists(
    st.tuples(st.integers(1, 8), st.integers(0, 12)), min_size=1, max_size=4, unique=True
)
prices = st.lists(st.floats(0, 5), min_size=4, max_size=4)


def _best(flavours: list[tuple[int, int]], values: list[float], model: tuple[int, int]) -> float:
    """The worth of a machine, by trying all sets."""
    found = 0.0
    most = [range(model[0] // width + 1) for width, _ in flavours]
    for counts in product(*most):
        vcpus, memory = np.array(counts) @ np.array(flavours)
        if vcpus <= model[0] and memory <= model[1]:
            found = max(found, sum(n * value for n, value in zip(counts, values, strict=False)))
    return found


@settings(max_examples=60, deadline=None)
@given(sizes, prices)
def test_the_worth_of_a_machine_is_its_best_set(
    flavours: list[tuple[int, int]], values: list[float]
) -> None:
    priced = np.array(values[: len(flavours)])
    filled = fill(np.array(flavours), priced, np.array(_MODELS))
    for model, worth, taken in zip(_MODELS, filled.worth, filled.sets, strict=True):
        assert worth == pytest.approx(_best(flavours, values, model), abs=1e-6)
        assert taken @ priced == pytest.approx(worth, abs=1e-6)
        assert (taken @ np.array(flavours) <= model).all()


@settings(max_examples=60, deadline=None)
@given(st.data(), sizes)
def test_no_packing_beats_the_bound(data: st.DataObject, flavours: list[tuple[int, int]]) -> None:
    machines = [Machine(f"m{n}", *_MODELS[n % 2], "z", "r") for n in range(6)]
    used = data.draw(st.integers(0, 6))
    arrivals: list[Arrival] = []
    for machine in machines[:used]:
        vcpus, memory = machine.vcpus, machine.memory
        for size in data.draw(st.lists(st.sampled_from(flavours), max_size=6)):
            if size[0] <= vcpus and size[1] <= memory:
                vcpus, memory = vcpus - size[0], memory - size[1]
                arrivals.append(Arrival(f"w{len(arrivals)}", 0, 9, *size))
    trace = Trace(tuple(machines), tuple(arrivals), 9)
    bound, at_peak = bound_of(trace)
    assert volume_bound(trace) <= at_peak <= max(used, 1)
    counts = np.zeros(len(bound.sizes), np.int64)
    for one in arrivals:
        flavour = bound.index(one.vcpus, one.memory)
        assert flavour is not None
        counts[flavour] += 1
    claimed = np.array([[one.vcpus, one.memory] for one in arrivals]).reshape(-1, 2).sum(axis=0)
    assert bound.of_any(counts, claimed) <= used


def test_shapes_tell_more_than_sums() -> None:
    machines = tuple(Machine(f"m{n}", 8, 8, "z", "r") for n in range(5))
    trace = Trace(machines, tuple(Arrival(f"w{n}", 0, 9, 5, 5) for n in range(3)), 9)
    bound, at_peak = bound_of(trace)
    assert (volume_bound(trace), at_peak) == (2, 3)
    assert bound.of_any(np.array([3]), np.array([15.0, 15.0])) == 3


def test_what_is_resized_counts_with_the_least_that_it_surely_has() -> None:
    machines = tuple(Machine(f"m{n}", 4, 4, "z", "r") for n in range(4))
    trace = Trace(
        machines,
        (Arrival("small", 0, 9, 4, 4), Arrival("large", 0, 9, 2, 2), Arrival("late", 5, 9, 4, 4)),
        9,
        (Resize("small", 4, 2, 2), Resize("large", 4, 4, 4)),
    )
    assert volume_bound(trace) == 2
    assert bound_of(trace)[1] == 2


def test_a_trace_of_fractions_is_rounded_so_that_the_bound_holds() -> None:
    machines = tuple(Machine(f"m{n}", 1.5, 1.5, "z", "r") for n in range(4))
    trace = Trace(machines, tuple(Arrival(f"w{n}", 0, 9, 0.75, 0.75) for n in range(4)), 9)
    bound, at_peak = bound_of(trace)
    assert bound.index(0.75, 0.75) is None
    assert (at_peak, bound.of_any(np.zeros(len(bound.sizes)), np.array([3.0, 3.0]))) == (2, 2)
