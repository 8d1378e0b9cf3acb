"""How well placement packs: one trace through virtmgr's scheduler and through published others.

    python -m bench.placement_quality [--machines 110] [--days 4] [--seeds 1,2,3,4,5]
    python -m bench.placement_quality --azure FILE.sqlite --machines 500
    python -m bench.placement_quality --alibaba DIRECTORY

Nothing is moved but where a machine is drained, and nobody knows how long anything will live.

``fewest``: the smallest number of machines, of the fleet's first ones, on which the whole trace has
no refusal, against the bound: no packing needs fewer than it takes for the sum of vCPUs and of
memory at their peak. ``used``: machines in use, averaged over time, on the whole fleet, against the
same bound at each moment. ``stranded``: of the machines in use, the share of vCPUs and memory that
is free without enough of the other beside it for any flavour (1 to 8 GiB a vCPU). ``refused``: by
size in vCPUs, with as many machines as ``best fit`` needs less 10 %.
"""

from __future__ import annotations

import argparse
import heapq
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.placement_policies import POLICIES, Policy
from bench.traces import alibaba, azure
from bench.traces.model import Arrival, Machine, Trace
from bench.traces.synthetic import RATIOS, Recipe, make

_SLACK = 1e-6
_REFERENCE = "best fit"
_ARRIVE, _RESIZE, _DRAIN, _OPEN = 1, 2, 3, 4  # and 0, to leave: that comes first
Make = Callable[[Sequence[Machine]], Policy]


@dataclass
class Figures:
    """Sums over the seconds of a trace."""

    seconds: float = 0.0
    used: float = 0.0
    bound: float = 0.0
    stranded: float = 0.0
    arrived: int = 0
    moves: int = 0
    refused: Counter[int] = field(default_factory=Counter)  # by vCPUs

    def mean(self, total: float) -> float:
        """A sum over time as its mean."""
        return total / self.seconds if self.seconds else 0.0


class Replay:
    """One trace, one policy, from beginning to end."""

    def __init__(self, trace: Trace, make_policy: Make) -> None:
        self._trace = trace
        self._policy = make_policy(trace.machines)
        self._limits = limits_of(trace.machines)
        self._claimed = np.zeros_like(self._limits)
        self._there: list[dict[str, Arrival]] = [{} for _ in trace.machines]
        self._where: dict[str, int] = {}
        self._drained = np.zeros(len(trace.machines), bool)
        self._best = _most_first(self._limits)
        self._now = 0.0
        self.figures = Figures()

    def run(self, most_refused: float = float("inf")) -> Figures:
        """Until the end, or until more than so many were refused."""
        steps = {_RESIZE: self._resize, _DRAIN: self._drain, _OPEN: self._open, 0: self._leave}
        queue = _timetable(self._trace)
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
            figures.bound += passed * fewest_by_volume(self._best, self._claimed.sum(axis=1))
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
        self._claim(host, one.vcpus, one.memory)

    def _leave(self, name: str) -> Arrival:
        host = self._where.pop(name)
        one = self._there[host].pop(name)
        self._claim(host, -one.vcpus, -one.memory)
        return one

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
            self._there[host][name] = replace(one, vcpus=vcpus, memory=memory)
            self._claim(host, *more)

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

    def _open(self, host: int) -> None:
        self._drained[host] = False
        self._policy.drain(host, False)


def _timetable(trace: Trace) -> list[tuple[float, int, int, object]]:
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
    heapq.heapify(found)
    return found


def _has_group(there: dict[str, Arrival], group: str) -> bool:
    return any(one.group == group for one in there.values())


def limits_of(machines: Sequence[Machine]) -> npt.NDArray[np.float64]:
    """vCPUs and memory of each, a row for each resource."""
    return np.array([[m.vcpus for m in machines], [m.memory for m in machines]])


def _most_first(limits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What the best 1, 2, 3 … machines have together, for each resource by itself."""
    return np.cumsum(-np.sort(-limits, axis=1), axis=1)


def fewest_by_volume(sums: npt.NDArray[np.float64], claimed: npt.NDArray[np.float64]) -> int:
    """No packing needs fewer machines, ``sums`` being what the first 1, 2, 3 … have together."""
    return max(
        int(np.searchsorted(have, amount - _SLACK)) + 1 if amount > _SLACK else 0
        for have, amount in zip(sums, claimed, strict=True)
    )


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


def fewest(trace: Trace, make_policy: Make) -> int:
    """The smallest number of first machines that refuse nothing; drains are left out.

    Found by halving: with more machines now and then one is refused all the same, of which this
    takes no notice.
    """
    low, high = peak_bound(trace), len(trace.machines)
    while low < high:
        middle = (low + high) // 2
        cut = replace(trace, machines=trace.machines[:middle], drains=())
        if Replay(cut, make_policy).run(most_refused=0).refused.total():
            low = middle + 1
        else:
            high = middle
    return low


def peak_bound(trace: Trace) -> int:
    """No packing needs fewer of the first machines, by what is asked at the peak."""
    changes = [(one.at, 1, one.vcpus, one.memory) for one in trace.arrivals]
    changes += [(one.ends, 0, -one.vcpus, -one.memory) for one in trace.arrivals]
    there = np.cumsum([change[2:] for change in sorted(changes)], axis=0)
    return fewest_by_volume(np.cumsum(limits_of(trace.machines), axis=1), there.max(axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--machines", type=int, default=110)
    parser.add_argument("--days", type=float, default=4.0)
    parser.add_argument("--load", type=float, default=0.5)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--alike", action="store_true", help="machines of one model")
    parser.add_argument("--azure", type=Path, help="the packing trace of 2020, SQLite")
    parser.add_argument("--alibaba", type=Path, help="a directory with the trace of 2018")
    arguments = parser.parse_args()
    if arguments.azure is not None:
        traces = [azure.read(arguments.azure, arguments.machines, arguments.days)]
    elif arguments.alibaba is not None:
        traces = [alibaba.read(arguments.alibaba)]
    else:
        traces = [
            make(
                Recipe(
                    seed=int(seed),
                    machines=arguments.machines,
                    days=arguments.days,
                    load=arguments.load,
                    alike=arguments.alike,
                )
            )
            for seed in arguments.seeds.split(",")
        ]
    show(traces, list(POLICIES))


def quick() -> None:
    """A small table for ``make bench-quick``."""
    show([make(Recipe(seed=1, machines=60, days=1.0, load=0.5))], list(POLICIES))


def show(traces: Sequence[Trace], policies: Sequence[str]) -> None:
    """Print the table, the means over the traces."""
    arrivals = sum(len(trace.arrivals) for trace in traces)
    print(f"{len(traces)} traces, {arrivals:,} workloads, {os.cpu_count()} CPUs")
    least = {
        name: [fewest(trace, POLICIES[name]) for trace in traces]
        for name in sorted(policies, key=lambda name: name != _REFERENCE)
    }
    bounds = [peak_bound(trace) for trace in traces]
    print("                   fewest  ÷ bound  ÷ best fit   used  ÷ bound  stranded  refused")
    for name in policies:
        whole = [Replay(trace, POLICIES[name]).run() for trace in traces]
        refused: Counter[int] = Counter()
        for trace, reference in zip(traces, least[_REFERENCE], strict=True):
            tight = replace(trace, machines=trace.machines[: int(reference * 0.9)], drains=())
            refused += Replay(tight, POLICIES[name]).run().refused
        used = np.mean([one.mean(one.used) for one in whole])
        at_least = np.mean([one.mean(one.bound) for one in whole])
        print(
            f"{name:18} {np.mean(least[name]):6.1f}  {_ratio(least[name], bounds):7.3f}  "
            f"{_ratio(least[name], least[_REFERENCE]):10.3f}  {used:5.1f}  {used / at_least:7.3f}  "
            f"{np.mean([one.mean(one.stranded) for one in whole]):8.3f}  {_by_size(refused)}",
            flush=True,
        )


def _ratio(these: Sequence[int], those: Sequence[int]) -> float:
    return float(np.mean(np.array(these) / np.array(those)))


def _by_size(refused: Counter[int]) -> str:
    return " ".join(f"{size}:{number}" for size, number in sorted(refused.items())) or "none"


_Raw = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
