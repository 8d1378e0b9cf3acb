"""Bounds on machines for ``bench.placement_quality``: no scheduler gets by with fewer.

Each holds for a moment, by what is there then, so that they hold whatever is moved, at any time,
by somebody who knows the future. They ignore groups and drains, and of resizes they count what is
certain. ``volume``: the sums of vCPUs and of memory, each by itself. ``shapes``: whole flavours on
whole machines, by prices (``packing_prices``); it is never below the other. Sizes are rounded down
to whole vCPUs and GiB and machines up, so it holds for traces that are made of fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil, floor

import numpy as np

from bench.packing_prices import Programme, Values, Whole, fill
from bench.traces.model import Machine, Trace

_SLACK = 1e-6
_SAMPLES, _PEAKS = 12, 12  # moments that prices are made for
_MOST_MOMENTS = 20_000
Size = tuple[int, int]


class Bound:
    """Prices, and what the machines are worth under them."""

    def __init__(self, machines: Sequence[Machine], sizes: Iterable[tuple[float, float]]) -> None:
        rounded = sorted({whole_size(*size) for size in sizes})
        self._index = {size: number for number, size in enumerate(rounded) if size[0] > 0}
        self.sizes: Whole = np.array(list(self._index), np.int64).reshape(-1, 2)
        models = [(ceil(m.vcpus - _SLACK), ceil(m.memory - _SLACK)) for m in machines]
        self.models, which = np.unique(np.array(models, np.int64), axis=0, return_inverse=True)
        self.model_of = which.ravel()
        self._prices = np.zeros((0, len(self.sizes)))
        self._in_order = np.zeros((0, len(machines)))
        self._best_first = np.zeros((0, len(machines)))
        self._largest = np.cumsum(-np.sort(-limits_of(machines), axis=1), axis=1)

    @property
    def machines(self) -> int:
        """How many there are."""
        return self._in_order.shape[1]

    def index(self, vcpus: float, memory: float) -> int | None:
        """The number of a flavour; None: it is too small to count."""
        return self._index.get(whole_size(vcpus, memory))

    def learn(self, prices: Values) -> None:
        """Prove by these prices as well."""
        worth = fill(self.sizes, prices, self.models).worth[self.model_of]
        self._prices = np.vstack([self._prices, prices])
        self._in_order = np.vstack([self._in_order, np.cumsum(worth)])
        self._best_first = np.vstack([self._best_first, np.cumsum(-np.sort(-worth))])

    def of_any(self, counts: Whole, claimed: Values) -> int:
        """No packing of so many of each flavour needs fewer machines, whichever they are.

        :param claimed: their vCPUs and memory, not rounded.
        """
        by_shape = _needed(self._best_first, self._prices @ counts)
        return max(by_shape, _needed(self._largest, claimed))

    def number_of_first(self, machines: int) -> Whole:
        """How many of each model are among so many first machines."""
        return np.bincount(self.model_of[:machines], minlength=len(self.models))

    def tightness(self, counts: Whole, machines: int) -> Values:
        """For each row of ``counts``, its price over the worth of so many first machines."""
        worth = np.maximum(self._in_order[:, machines - 1], _SLACK)
        tight: Values = (counts @ self._prices.T / worth).max(axis=1, initial=0.0)
        return tight


def limits_of(machines: Sequence[Machine]) -> Values:
    """vCPUs and memory of each, a row for each resource."""
    return np.array([[m.vcpus for m in machines], [m.memory for m in machines]])


def whole_size(vcpus: float, memory: float) -> Size:
    """Rounded down."""
    return floor(vcpus + _SLACK), floor(memory + _SLACK)


def bound_of(trace: Trace) -> tuple[Bound, int]:
    """A bound with prices for moments all over the trace, and for its peak; and what that takes: no
    packing of the whole trace needs fewer of the first machines."""
    sizes = [(one.vcpus, one.memory) for one in (*trace.arrivals, *trace.resizes)]
    bound = Bound(trace.machines, [*sizes, *(least for _, _, least in _shrunk(trace))])
    moments = _moments(trace, bound)
    at_peak = volume_bound(trace)
    if not moments.size:
        return bound, at_peak
    programme = Programme(bound.sizes, bound.models)
    for number in np.linspace(0, len(moments) - 1, _SAMPLES).astype(int):
        bound.learn(programme.cheapest(moments[number], bound.number_of_first(bound.machines)))
    looked_at: set[tuple[int, int]] = set()
    for _ in range(_PEAKS):
        hardest = int(bound.tightness(moments, at_peak).argmax())
        if (hardest, at_peak) in looked_at:
            break
        looked_at.add((hardest, at_peak))
        bound.learn(programme.shared(moments[hardest], bound.number_of_first(at_peak)))
        while at_peak < bound.machines and bound.tightness(moments, at_peak).max() > 1 + _SLACK:
            at_peak += 1
    return bound, at_peak


def volume_bound(trace: Trace) -> int:
    """How many of the first machines the sums of vCPUs and of memory take at their peaks."""
    changes = [
        change
        for vcpus, memory, begins, ends in _spans(trace)
        for change in ((begins, 1, vcpus, memory), (ends, 0, -vcpus, -memory))
    ]
    there = np.cumsum([change[2:] for change in sorted(changes)], axis=0)
    have = np.cumsum(limits_of(trace.machines), axis=1)
    return min(_needed(have, there.max(axis=0)), len(trace.machines)) if changes else 0


def _shrunk(trace: Trace) -> Iterator[tuple[str, float, tuple[float, float]]]:
    """Of what is resized: the name, when first, and what it surely has of vCPUs and memory then.

    A resize that its host has no room for does nothing, so it has the least of both sizes.
    """
    arrivals = {one.name: one for one in trace.arrivals}
    first: dict[str, float] = {}
    least: dict[str, tuple[float, float]] = {}
    for wanted in sorted(trace.resizes, key=lambda resize: resize.at):
        name = wanted.name
        vcpus, memory = least.get(name, (arrivals[name].vcpus, arrivals[name].memory))
        least[name] = (min(vcpus, wanted.vcpus), min(memory, wanted.memory))
        first.setdefault(name, wanted.at)
    return ((name, at, least[name]) for name, at in first.items())


def _spans(trace: Trace) -> Iterator[tuple[float, float, float, float]]:
    """What is surely there: vCPUs, memory, from when, until when."""
    resized = {name: (at, size) for name, at, size in _shrunk(trace)}
    for one in trace.arrivals:
        at, size = resized.get(one.name, (one.ends, (0.0, 0.0)))
        for span in ((one.vcpus, one.memory, one.at, at), (*size, at, one.ends)):
            if span[2] < span[3]:
                yield span


def _moments(trace: Trace, bound: Bound) -> Whole:
    """What is surely there after each change, as counts by flavour; some of very many changes."""
    changes: list[tuple[float, int, int]] = []  # when, how many more, of which flavour
    for vcpus, memory, begins, ends in _spans(trace):
        flavour = bound.index(vcpus, memory)
        if flavour is not None:
            changes += [(begins, 1, flavour), (ends, -1, flavour)]
    changes = sorted(change for change in changes if change[0] <= trace.seconds)
    steps = np.zeros((len(changes), len(bound.sizes)), np.int32)
    for row, (_, more, flavour) in enumerate(changes):
        steps[row, flavour] = more
    every = max(1, len(changes) // _MOST_MOMENTS)
    return np.cumsum(steps, axis=0)[::every].astype(np.int64)


def _needed(together: Values, priced: Values) -> int:
    """How many machines are worth what is priced, by the row that asks for most.

    :param together: for each row what the first 1, 2, 3 … machines are worth.
    """
    short = together < (priced - _SLACK * (1 + priced))[:, np.newaxis]
    return int((short.sum(axis=1) + (priced > _SLACK)).max(initial=0))
