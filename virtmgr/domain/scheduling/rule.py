"""One filter, applied: the hosts that pass it, and the reason why another does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def failing_first(rules: tuple[Rule, ...], passing: Mask) -> tuple[tuple[Mask, ...], Mask]:
    """For each rule the hosts of ``passing`` that it is the first to refuse, and who is left."""
    failing = []
    for rule in rules:
        failing.append(passing & ~rule.passes)
        passing = passing & rule.passes
    return tuple(failing), passing


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


def examples(failing: tuple[Mask, ...]) -> npt.NDArray[np.intp]:
    """Up to ``SOME`` hosts of each mask."""
    return np.array([host for mask in failing for host in _first(mask)], np.intp)


def _first(mask: Mask) -> list[int]:
    """The first ``SOME``; a mask of thousands is not read to its end."""
    found: list[int] = []
    start = 0
    while len(found) < SOME and start < mask.size:
        start += int(mask[start:].argmax())
        if not mask[start]:
            break
        found.append(start)
        start += 1
    return found
