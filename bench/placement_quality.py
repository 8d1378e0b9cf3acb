"""How well placement packs: one trace through virtmgr's scheduler and through published others.

    python -m bench.placement_quality [--machines 110] [--days 4] [--seeds 1,2,3,4,5]
    python -m bench.placement_quality --azure packing_trace_zone_a_v1.sqlite --machines 500
    python -m bench.placement_quality --alibaba DIRECTORY

Nothing is moved but where a machine is drained, and nobody knows how long anything will live. The
rows with moves add what virtmgr's rebalancing does by itself (``placement_moves``), so many moves
at most in each round.

``fewest``: the smallest number of machines, of the fleet's first ones, on which the whole trace has
no refusal, against the bound at the peak. ``used``: machines in use, averaged over time, on the
whole fleet, against the bound at each moment. ``packing_bounds`` says what the bounds assume.
``stranded``: of the machines in use, the share of vCPUs and memory that is free without enough of
the other beside it for any flavour (1 to 8 GiB a vCPU). ``moves``: of rebalancing, an hour; ``‰``:
of so many workload-hours there was one. ``refused``: by size in vCPUs, with as many machines as
``best fit`` needs less 10 %.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.packing_bounds import Bound, bound_of, volume_bound
from bench.placement_moves import HOURLY, MOVING
from bench.placement_policies import POLICIES
from bench.placement_replay import Figures, Make, Replay
from bench.traces import alibaba, azure
from bench.traces.model import Trace
from bench.traces.synthetic import Recipe, make

_REFERENCE = "best fit"
_HOUR = 3600.0


@dataclass(frozen=True)
class Task:
    """A trace, its bound at any moment, and how many of the first machines its peak takes."""

    trace: Trace
    bound: Bound
    at_peak: int

    def fewest(self, make_policy: Make) -> int:
        """The smallest number of first machines that refuse nothing; drains are left out.

        Found by halving: with more machines now and then one is refused all the same, of which this
        takes no notice.
        """
        low, high = self.at_peak, len(self.trace.machines)
        while low < high:
            middle = (low + high) // 2
            if Replay(self._first(middle), make_policy).run(most_refused=0).refused.total():
                low = middle + 1
            else:
                high = middle
        return low

    def refused(self, make_policy: Make, machines: int) -> Counter[int]:
        """What so many first machines refuse, by vCPUs."""
        return Replay(self._first(machines), make_policy).run().refused

    def whole(self, make_policy: Make) -> Figures:
        """The figures on all machines."""
        return Replay(self.trace, make_policy, self.bound).run()

    def _first(self, machines: int) -> Trace:
        return replace(self.trace, machines=self.trace.machines[:machines], drains=())


def task(trace: Trace) -> Task:
    """A trace with its bounds."""
    return Task(trace, *bound_of(trace))


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
    show(traces, {**MOVING, **POLICIES})


def quick() -> None:
    """A small table for ``make bench-quick``: those that pack."""
    trace = make(Recipe(seed=1, machines=60, days=0.5, load=0.5))
    packing = ("virtmgr pack", "first fit", _REFERENCE, "Kubernetes most")
    show([trace], {HOURLY: MOVING[HOURLY], **{name: POLICIES[name] for name in packing}})


def show(traces: Sequence[Trace], policies: Mapping[str, Make]) -> None:
    """Print the table, the means over the traces."""
    tasks = [task(trace) for trace in traces]
    arrivals = sum(len(trace.arrivals) for trace in traces)
    print(f"{len(traces)} traces, {arrivals:,} workloads, {os.cpu_count()} CPUs")
    print(
        f"bound at the peak: {np.mean([volume_bound(trace) for trace in traces]):.1f} machines by "
        f"volume, {np.mean([one.at_peak for one in tasks]):.1f} by shapes"
    )
    reference = [one.fewest(policies[_REFERENCE]) for one in tasks]
    print(
        f"{'':31}fewest  ÷ bound  ÷ best fit   used  ÷ bound  stranded   moves    ‰  refused",
        flush=True,
    )
    for name, make_policy in policies.items():
        print(f"{name:30} {_row(tasks, make_policy, reference)}", flush=True)


def _row(tasks: Sequence[Task], make_policy: Make, reference: Sequence[int]) -> str:
    least = [one.fewest(make_policy) for one in tasks]
    whole = [one.whole(make_policy) for one in tasks]
    refused: Counter[int] = Counter()
    for one, machines in zip(tasks, reference, strict=True):
        refused += one.refused(make_policy, int(machines * 0.9))
    hours = sum(one.seconds for one in whole) / _HOUR
    moves = sum(one.rebalanced for one in whole)
    workload_hours = sum(one.workloads for one in whole) / _HOUR
    return (
        f"{np.mean(least):6.1f}  {_ratio(least, [one.at_peak for one in tasks]):7.3f}  "
        f"{_ratio(least, reference):10.3f}  {np.mean([one.mean(one.used) for one in whole]):5.1f}  "
        f"{_ratio([one.used for one in whole], [one.bound for one in whole]):7.3f}  "
        f"{np.mean([one.mean(one.stranded) for one in whole]):8.3f}  "
        f"{moves / hours:6.1f}  {1000 * moves / max(workload_hours, 1.0):3.0f}  {_by_size(refused)}"
    )


def _ratio(these: Sequence[float], those: Sequence[float]) -> float:
    return float(np.mean(np.array(these) / np.array(those)))


def _by_size(refused: Counter[int]) -> str:
    return " ".join(f"{size}:{number}" for size, number in sorted(refused.items())) or "none"


_Raw = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
