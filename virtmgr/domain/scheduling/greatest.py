"""The greatest few of many numbers, kept while the numbers change one by one."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
import numpy.typing as npt

# More are kept than are asked for: as many can become smaller before all are looked at again.
_SPARE = 250


class Greatest:
    """``_top`` has, in rising order, some numbers of which all others are at most ``_bound``, and
    each that is above it."""

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        """:param values: taken over; change them by ``put``."""
        self.values = values
        self._top: list[float] = []
        self._bound = np.inf

    def put(self, index: int, value: float) -> None:
        """Change one number."""
        before = float(self.values[index])
        self.values[index] = value
        if before > self._bound or (self._top and before == self._top[0]):
            del self._top[bisect_left(self._top, before)]
        if value > self._bound:
            insort(self._top, value)

    def first(self, count: int) -> list[float]:
        """The greatest ones, the greatest first; fewer if there are fewer numbers."""
        if count > len(self._top) and len(self._top) < len(self.values):
            self._look_at_all(count + _SPARE)
        return self._top[: -count - 1 : -1]

    def _look_at_all(self, count: int) -> None:
        if count >= len(self.values):
            self._top, self._bound = np.sort(self.values).tolist(), -np.inf
        else:
            self._top = np.sort(np.partition(self.values, -count)[-count:]).tolist()
            self._bound = self._top[0]
