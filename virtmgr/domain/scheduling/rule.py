"""One filter, applied: the hosts that pass it, and the reason why another does not."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from virtmgr.domain.scheduling.capacity import Amounts, Resource
from virtmgr.domain.scheduling.fleet import Mask
from virtmgr.domain.scheduling.model import HostView

SOME = 3  # hosts that fail a rule first and are named, of a large fleet

Why = Callable[[HostView, Amounts, Amounts], str]
"""The reason of a host, from the host, what was claimed on it, and its limits."""


@dataclass(frozen=True, eq=False)
class Rule:
    """One filter, applied to one request."""

    code: str  # stable, of the reason
    passes: Mask
    one: str  # for the summary: "1 lacks memory"
    many: str  # "2 lack memory"
    why: Why
    resource: Resource | None = None  # of a capacity rule, whose summary tells the largest free
    numbers: Hashable = None  # of the whole cluster, in the reason: a batch changes them


@dataclass(frozen=True, eq=False)
class Filtered:
    """What rules do together, one after the other."""

    rules: tuple[Rule, ...]
    passing: Mask  # all of them, and what was before them
    failing_first: tuple[Mask, ...]  # for each rule, the hosts that pass all before it
    rejected: Mapping[str, int]
    """How many hosts have each reason, by its code."""

    @cached_property
    def count(self) -> int:
        """How many hosts pass."""
        return int(np.count_nonzero(self.passing))

    @cached_property
    def examples(self) -> npt.NDArray[np.intp]:
        """A few hosts that fail each rule first."""
        return np.array([host for mask in self.failing_first for host in first(mask)], np.intp)


def filtered(rules: tuple[Rule, ...], passing: Mask) -> Filtered:
    """Apply rules to the hosts of ``passing``."""
    failing = []
    for rule in rules:
        failing.append(passing & ~rule.passes)
        passing = passing & rule.passes
    return Filtered(rules, passing, tuple(failing), count_rejected(rules))


def always(text: str) -> Why:
    """A reason that is the same for every host."""
    return lambda *_: text


def count_rejected(rules: tuple[Rule, ...]) -> dict[str, int]:
    """How many hosts have each reason, by its code."""
    passing: dict[str, Mask] = {}
    for rule in rules:
        before = passing.get(rule.code)
        passing[rule.code] = rule.passes if before is None else before & rule.passes
    failing = {code: mask.size - int(np.count_nonzero(mask)) for code, mask in passing.items()}
    return {code: number for code, number in failing.items() if number}


def first(mask: Mask, most: int = SOME) -> list[int]:
    """The first hosts of a mask; one of thousands is not read to its end."""
    found: list[int] = []
    start = 0
    while len(found) < most and start < mask.size:
        start += int(mask[start:].argmax())
        if not mask[start]:
            break
        found.append(start)
        start += 1
    return found
