"""Prices of flavours that prove how few machines can hold some workloads.

Give each flavour a price. A machine of a model holds workloads of at most so much together, its
``worth``: the best of all sets of workloads that fit on it, whole ones, in all resources at once.
Then what is there cannot stand on machines that are worth less together than it is priced. Any
prices prove a bound; good ones come from the linear programme whose columns are such sets
(P. C. Gilmore, R. E. Gomory, "A Linear Programming Approach to the Cutting-Stock Problem", 1961).
The programme is solved in floating point and may be left early: only the prices count, and the
worth of a machine under them is found by dynamic programming over all sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
_ZERO = 1e-9
_DEAR = 1e4  # what leaving a workload out costs, against one machine
_MOST_PIVOTS, _MOST_COLUMNS = 5000, 300
_UP, _LEFT = -1, -2  # how a cell of the table was reached: one vCPU less, or one GiB less


@dataclass(frozen=True)
class Filled:
    """What machines of each model hold at best under some prices: the worth, and the workloads."""

    worth: Values
    sets: Whole  # a row for each model, a column for each flavour


def fill(sizes: Whole, prices: Values, models: Whole) -> Filled:
    """The best sets of workloads.

    :param sizes: a row for each flavour: whole vCPUs, of which there is at least one, and memory.
    :param models: a row for each model of machine: vCPUs and memory.
    """
    vcpus, memory = (int(most) for most in models.max(axis=0))
    table = np.zeros((vcpus + 1, memory + 1))
    chosen = np.full(table.shape, _UP, np.int16)
    useful = [n for n in np.flatnonzero(prices > _ZERO) if sizes[n, 1] <= memory]
    for row in range(1, vcpus + 1):
        table[row] = table[row - 1]
        for number in useful:
            width, height = sizes[number]
            if width <= row:
                better = table[row - width, : memory + 1 - height] + prices[number]
                there = table[row, height:]
                wins = better > there + _ZERO
                there[wins] = better[wins]
                chosen[row, height:][wins] = number
        highest = np.maximum.accumulate(table[row])
        chosen[row][highest > table[row]] = _LEFT
        table[row] = highest
    sets = np.array([_walk(chosen, sizes, model) for model in models])
    return Filled(table[models[:, 0], models[:, 1]], sets)


def _walk(chosen: npt.NDArray[np.int16], sizes: Whole, model: Whole) -> Whole:
    """The workloads on the way to the cell of a model."""
    found = np.zeros(len(sizes), np.int64)
    vcpus, memory = (int(n) for n in model)
    while vcpus > 0:
        number = int(chosen[vcpus, memory])
        if number == _UP:
            vcpus -= 1
        elif number == _LEFT:
            memory -= 1
        else:
            found[number] += 1
            vcpus, memory = vcpus - int(sizes[number, 0]), memory - int(sizes[number, 1])
    return found


class Programme:
    """Workloads are covered by sets, each on a machine of a model of which there are some.

    ``cheapest``: the fewest machines of those there are. ``shared``: the share of all machines that
    is needed when every model is used alike, above 1: they do not suffice. The columns that were
    found are kept for the next time.
    """

    def __init__(self, sizes: Whole, models: Whole) -> None:
        self._sizes, self._models = sizes, models
        self._sets: list[Whole] = []
        self._of_model: list[int] = []

    def cheapest(self, counts: Whole, machines: Whole) -> Values:
        """Prices for the fewest machines. ``counts`` by flavour, ``machines`` by model."""
        return self._solve(counts, machines.astype(float), None)

    def shared(self, counts: Whole, machines: Whole) -> Values:
        """Prices for whether exactly these machines suffice."""
        return self._solve(counts, np.zeros(len(machines)), machines.astype(float))

    def _solve(self, counts: Whole, usable: Values, whole: Values | None) -> Values:
        dice = np.random.default_rng(0)
        flavours, models = len(self._sizes), len(self._models)
        right = np.concatenate([counts, usable]) + dice.uniform(1e-7, 1e-6, flavours + models)
        unit = np.eye(flavours + models)
        fixed = [unit, -unit[:, :flavours]]  # left out or unused; covered more often than needed
        costs = [np.full(flavours, _DEAR), np.zeros(models + flavours)]
        if whole is not None:
            fixed.append(np.concatenate([np.zeros(flavours), -whole])[:, np.newaxis])
            costs.append(np.ones(1))
        each = 1.0 if whole is None else 0.0
        simplex = Simplex(np.hstack(fixed), np.concatenate(costs), right)
        for taken, model in zip(self._sets, self._of_model, strict=True):
            simplex.add(self._column(taken, model), each)
        prices = np.zeros(flavours)
        for _ in range(_MOST_COLUMNS):
            duals = simplex.solve()
            prices = np.maximum(duals[:flavours], 0.0)
            rents = each - duals[flavours:]
            best = fill(self._sizes, prices, self._models)
            short = np.flatnonzero(best.worth > rents + 1e-6 * (1 + np.abs(rents)))
            if not short.size:
                break
            for model in short:
                self._sets.append(best.sets[model])
                self._of_model.append(int(model))
                simplex.add(self._column(best.sets[model], int(model)), each)
        return prices

    def _column(self, taken: Whole, model: int) -> Values:
        usage = np.zeros(len(self._models))
        usage[model] = 1.0
        return np.concatenate([taken, usage])


class Simplex:
    """The least cost of columns whose sum is at least ``right``, by the revised simplex method.

    The first columns have to be a unit matrix; ``right`` is positive and has no ties.
    """

    def __init__(self, columns: Values, costs: Values, right: Values) -> None:
        rows = len(right)
        self._columns, self._costs = columns, costs
        self._basis = np.arange(rows)
        self._inverse = np.eye(rows)
        self._level = right.copy()

    def add(self, column: Values, cost: float) -> None:
        """One more column."""
        self._columns = np.hstack([self._columns, column[:, np.newaxis]])
        self._costs = np.append(self._costs, cost)

    def solve(self) -> Values:
        """The duals at the optimum, or where it was left."""
        for _ in range(_MOST_PIVOTS):
            duals: Values = self._costs[self._basis] @ self._inverse
            reduced = self._costs - duals @ self._columns
            enters = int(reduced.argmin())
            if reduced[enters] > -_ZERO:
                break
            self._pivot(enters)
        return duals

    def _pivot(self, enters: int) -> None:
        way = self._inverse @ self._columns[:, enters]
        steps = np.divide(self._level, way, out=np.full(len(way), np.inf), where=way > _ZERO)
        leaves = int(steps.argmin())
        if not np.isfinite(steps[leaves]):
            raise ArithmeticError("the linear programme has no least cost")
        row = self._inverse[leaves] / way[leaves]
        self._inverse -= np.outer(way, row)
        self._inverse[leaves] = row
        step = steps[leaves]
        self._level -= step * way
        self._level[leaves] = step
        self._basis[leaves] = enters
