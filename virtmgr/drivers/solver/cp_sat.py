"""Rebalancing by CP-SAT of OR-Tools: ``pip install 'virtmgr[solver]'``.

Its time is counted in the solver's own deterministic units, so that the same cluster gives the same
plan (https://github.com/google/or-tools/blob/stable/ortools/sat/sat_parameters.proto).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from virtmgr.domain.rebalancing.exact import Problem, Solver

_EFFORT: Final = 2.0  # deterministic units, about seconds
_LONGEST: Final = 2.5  # seconds for each unit, whatever the machine is like: somebody waits


def installed() -> Solver | None:
    """The solver; None where OR-Tools are not installed."""
    return solve if find_spec("ortools") is not None else None


def solve(problem: Problem, effort: float = _EFFORT) -> Sequence[int] | None:
    """The bin of each item; None: nothing was found in time.

    :param effort: in the solver's deterministic units.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    at = [
        {int(place): model.new_bool_var("") for place in np.flatnonzero(row)}
        for row in problem.allowed
    ]
    for places in at:
        model.add_exactly_one(places.values())
    sources = [int(source) for source in problem.sources]
    moved = [1 - places[source] for places, source in zip(at, sources, strict=True)]
    model.add(sum(moved) <= problem.most_moves)
    here: list[list[tuple[int, Any]]] = [[] for _ in problem.room]
    for item, places in enumerate(at):
        for place, variable in places.items():
            here[place].append((item, variable))
            model.add_hint(variable, int(problem.hint[item]) == place)
    _keep_room(model, problem, here)
    cost = _empties(model, problem, here) if problem.empties else _levels(model, problem, here)
    price = 1 if problem.empties else problem.price
    model.minimize(cost + price * sum(moved))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    solver.parameters.max_deterministic_time = effort
    solver.parameters.max_time_in_seconds = _LONGEST * effort
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return [next(place for place, x in places.items() if solver.value(x)) for places in at]


def _keep_room(model: Any, problem: Problem, here: list[list[tuple[int, Any]]]) -> None:
    """No bin takes more than it has room for, or than it has already."""
    now = np.zeros_like(problem.room)
    np.add.at(now, problem.sources, problem.amounts)
    most = np.maximum(problem.room, now)
    for place, items in enumerate(here):
        for resource in range(problem.room.shape[1]):
            taken = sum(int(problem.amounts[item, resource]) * x for item, x in items)
            if items:
                model.add(taken <= int(most[place, resource]))


def _empties(model: Any, problem: Problem, here: list[list[tuple[int, Any]]]) -> Any:
    """How many bins are in use, each worth more than all moves."""
    used = []
    for place, items in enumerate(here):
        if problem.fixed[place] or not items:
            continue
        variable = model.new_bool_var("")
        for _, x in items:
            model.add_implication(x, variable)
        used.append(variable)
    return (problem.most_moves + 1) * sum(used)


def _levels(model: Any, problem: Problem, here: list[list[tuple[int, Any]]]) -> Any:
    """What loads are farther from the level than the threshold."""
    outside = []
    for row, level in enumerate(problem.level):
        for place, items in enumerate(here):
            base = int(problem.base[row, place])
            load = base + sum(int(problem.loads[item, row, place]) * x for item, x in items)
            largest = int(problem.loads[:, row, place].sum()) + base + int(level)
            variable = model.new_int_var(0, max(largest, int(level)) + 1, "")
            model.add(variable >= load - int(level) - problem.threshold)
            model.add(variable >= int(level) - problem.threshold - load)
            outside.append(variable)
    return sum(outside)
