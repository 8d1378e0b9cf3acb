"""One trace through one policy: who stands where at each moment, and the sums over time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bench.packing_bounds import Bound, limits_of
from bench.placement_policies import Policy, Rebalancing
from bench.traces.model import Arrival, Machine, Trace
from bench.traces.synthetic import RATIOS

_SLACK = 1e-6
_ARRIVE, _RESIZE, _DRAIN, _OPEN, _REBALANCE = 1, 2, 3, 4, 5  # and 0, to leave: that comes first
Make = Callable[[Sequence[Machine]], Policy]


@dataclass
class Figures:
    """Sums over the seconds of a trace."""

    seconds: float = 0.0
    used: float = 0.0
    bound: float = 0.0
    stranded: float = 0.0
    arrived: int = 0
    moves: int = 0  # of drains
    rebalanced: int = 0  # moves of rebalancing
    workloads: float = 0.0
    refused: Counter[int] = field(default_factory=Counter)  # by vCPUs

    def mean(self, total: float) -> float:
        """A sum over time as its mean."""
        return total / self.seconds if self.seconds else 0.0


class Replay:
    """One trace, one policy, from beginning to end."""

    def __init__(self, trace: Trace, make_policy: Make, bound: Bound | None = None) -> None:
        """:param bound: of the trace's machines; without it ``Figures.bound`` stays 0."""
        self._trace = trace
        self._bound = bound
        self._policy = make_policy(trace.machines)
        self._limits = limits_of(trace.machines)
        self._claimed = np.zeros_like(self._limits)
        self._there: list[dict[str, Arrival]] = [{} for _ in trace.machines]
        self._where: dict[str, int] = {}
        self._drained = np.zeros(len(trace.machines), bool)
        self._counts = np.zeros(0 if bound is None else len(bound.sizes), np.int64)
        self._now = 0.0
        self.figures = Figures()

    def run(self, most_refused: float = float("inf")) -> Figures:
        """Until the end, or until more than so many were refused."""
        steps = {
            _RESIZE: self._resize,
            _DRAIN: self._drain,
            _OPEN: self._open,
            _REBALANCE: self._rebalance,
            0: self._leave,
        }
        queue = _timetable(self._trace, self._policy)
        while queue and queue[0][0] <= self._trace.seconds:
            at, kind, number, what = heapq.heappop(queue)
            self._pass_time(at)
            if kind != _ARRIVE:
                steps[kind](what)
            elif self._arrive(what):
                heapq.heappush(queue, (what.ends, 0, number, what.name))
            elif self.figures.refused.total() > most_refused:
                break
        self._pass_time(self._trace.seconds)
        return self.figures

    def _pass_time(self, until: float) -> None:
        passed = until - self._now
        if passed > 0:
            used = np.array([bool(there) for there in self._there])
            figures = self.figures
            figures.seconds += passed
            figures.used += passed * int(used.sum())
            figures.workloads += passed * len(self._where)
            if self._bound is not None:
                needed = self._bound.of_any(self._counts, self._claimed.sum(axis=1))
                figures.bound += passed * needed
            figures.stranded += passed * _stranded(self._limits - self._claimed, self._limits, used)
            self._now = until

    def _arrive(self, wanted: Arrival) -> bool:
        self.figures.arrived += 1
        host = self._place(wanted)
        if host is None:
            self.figures.refused[round(wanted.vcpus)] += 1
        return host is not None

    def _place(self, wanted: Arrival) -> int | None:
        asked = np.array([[wanted.vcpus], [wanted.memory]])
        fitting = (self._claimed + asked <= self._limits + _SLACK).all(axis=0) & ~self._drained
        near: list[int] = []
        if wanted.group is not None:
            near = [n for n, there in enumerate(self._there) if _has_group(there, wanted.group)]
            fitting[near] = False
        if not fitting.any():
            return None
        host = self._policy.choose(wanted, near, fitting)
        if not fitting[host]:
            raise RuntimeError(f"{wanted.name} was put where it does not fit")
        self._put(wanted, host)
        return host

    def _put(self, one: Arrival, host: int) -> None:
        self._where[one.name] = host
        self._there[host][one.name] = one
        self._count(one, 1)
        self._claim(host, one.vcpus, one.memory)

    def _leave(self, name: str) -> Arrival:
        host = self._where.pop(name)
        one = self._there[host].pop(name)
        self._count(one, -1)
        self._claim(host, -one.vcpus, -one.memory)
        return one

    def _count(self, one: Arrival, more: int) -> None:
        flavour = None if self._bound is None else self._bound.index(one.vcpus, one.memory)
        if flavour is not None:
            self._counts[flavour] += more

    def _claim(self, host: int, vcpus: float, memory: float) -> None:
        self._claimed[:, host] += (vcpus, memory)
        self._policy.claim(host, vcpus, memory)

    def _resize(self, wanted: tuple[str, float, float]) -> None:
        name, vcpus, memory = wanted
        host = self._where.get(name)
        if host is None:
            return
        one = self._there[host][name]
        more = (vcpus - one.vcpus, memory - one.memory)
        if (self._claimed[:, host] + more <= self._limits[:, host] + _SLACK).all():
            self._leave(name)
            self._put(replace(one, vcpus=vcpus, memory=memory), host)

    def _drain(self, host: int) -> None:
        """Everything goes elsewhere that finds room; the rest stays."""
        self._drained[host] = True
        self._policy.drain(host, True)
        for one in sorted(self._there[host].values(), key=lambda one: -one.vcpus):
            self._leave(one.name)
            if self._place(one) is None:
                self._put(one, host)
            else:
                self.figures.moves += 1

    def _rebalance(self, policy: Rebalancing) -> None:
        """Carry a plan out; a move that is not allowed is a mistake of the plan."""
        for name, host in policy.moves(self._there):
            one = self._leave(name)
            free = self._limits[:, host] - self._claimed[:, host]
            if (
                self._drained[host]
                or (free < (one.vcpus - _SLACK, one.memory - _SLACK)).any()
                or (one.group is not None and _has_group(self._there[host], one.group))
            ):
                raise RuntimeError(f"{name} was to move where it does not fit")
            self._put(one, host)
            self.figures.rebalanced += 1

    def _open(self, host: int) -> None:
        self._drained[host] = False
        self._policy.drain(host, False)


def _timetable(trace: Trace, policy: Policy) -> list[tuple[float, int, int, object]]:
    index = {machine.name: number for number, machine in enumerate(trace.machines)}
    found: list[tuple[float, int, int, object]] = []
    found += [(one.at, _ARRIVE, n, one) for n, one in enumerate(trace.arrivals)]
    found += [
        (one.at, _RESIZE, n, (one.name, one.vcpus, one.memory))
        for n, one in enumerate(trace.resizes)
    ]
    for number, drain in enumerate(trace.drains):
        if drain.machine in index:
            found.append((drain.at, _DRAIN, number, index[drain.machine]))
            found.append((drain.ends, _OPEN, number, index[drain.machine]))
    if isinstance(policy, Rebalancing):
        rounds = np.arange(policy.every, trace.seconds, policy.every)
        found += [(float(at), _REBALANCE, n, policy) for n, at in enumerate(rounds)]
    heapq.heapify(found)
    return found


def _has_group(there: dict[str, Arrival], group: str) -> bool:
    return any(one.group == group for one in there.values())


def _stranded(
    free: npt.NDArray[np.float64], limits: npt.NDArray[np.float64], used: npt.NDArray[np.bool_]
) -> float:
    """The mean of the stranded shares of vCPUs and memory of the machines in use."""
    if not used.any():
        return 0.0
    vcpus, memory = free[:, used]
    lost = (
        np.maximum(vcpus - memory / RATIOS[0], 0).sum(),
        np.maximum(memory - vcpus * RATIOS[-1], 0).sum(),
    )
    return float(np.mean(np.array(lost) / limits[:, used].sum(axis=1)))
