"""Why this host, and why no other: the answer that a placement carries.

A fleet of up to ``ALL`` hosts is explained host by host. Of a larger one, the explanation lists the
best ``BEST`` hosts that fit and a few that fail each rule first, and counts all of them by
reason: what it says is true of the whole fleet, and it costs no more than a few hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from virtmgr.domain.scheduling.fleet import Fleet, Mask, Scores
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.rules import (
    FixedRules,
    Rule,
    count_rejected,
    examples,
    largest_free,
)
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.scheduling.weighers import Weight
from virtmgr.domain.workload import Reason

ALL, BEST = 100, 5


@dataclass(frozen=True)
class HostVerdict:
    """One host: it fits and has a score, or does not and has reasons."""

    host_id: str
    host_name: str
    fits: bool
    reasons: tuple[Reason, ...] = ()
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    """Value by weigher, before its factor (``weighers.FACTORS``)."""

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON."""
        return self._json

    @cached_property
    def _json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "host": {"id": self.host_id, "name": self.host_name},
            "fits": self.fits,
        }
        if self.score is not None:
            found["score"] = round(self.score, 4)
            found["scores"] = {name: round(value, 4) for name, value in self.scores.items()}
        if self.reasons:
            found["reasons"] = [{"code": r.code, "message": r.message} for r in self.reasons]
        return found


@dataclass(frozen=True)
class Told:
    """What an explanation says."""

    summary: str  # one sentence
    hosts: int  # that were looked at
    fitting: int
    rejected: Mapping[str, int]
    write: Callable[[], tuple[HostVerdict, ...]]


class Explanation:
    """Why a request was placed where it was, or nowhere; worked out when it is first read."""

    def __init__(self, explain: Callable[[], Told]) -> None:
        self._explain = explain

    @cached_property
    def _told(self) -> Told:
        return self._explain()

    @property
    def summary(self) -> str:
        """One sentence."""
        return self._told.summary

    @property
    def hosts(self) -> int:
        """How many were looked at."""
        return self._told.hosts

    @property
    def fitting(self) -> int:
        """How many of them fit."""
        return self._told.fitting

    @property
    def rejected(self) -> Mapping[str, int]:
        """How many hosts have each reason, by its code; a host may have several."""
        return self._told.rejected

    @cached_property
    def verdicts(self) -> tuple[HostVerdict, ...]:
        """The hosts that fit, best first, then the others by name; see the module for how many."""
        return self._told.write()

    @property
    def complete(self) -> bool:
        """Whether every host has a verdict."""
        return len(self.verdicts) == self.hosts

    def to_json(self) -> dict[str, Any]:
        """The explanation as JSON, as the API and the inventory carry it."""
        return {
            "summary": self.summary,
            "hosts": self.hosts,
            "fitting": self.fitting,
            "rejected": dict(self.rejected),
            "complete": self.complete,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that one placement worked out, before it is put in words."""

    fixed: FixedRules
    moving: tuple[Rule, ...]
    failing_first: tuple[Mask, ...]  # for each that moves, the hosts that pass all before it
    fitting: Mask
    weights: tuple[Weight, ...] = ()
    ranked: Scores | None = None  # −∞ where it does not fit
    chosen: int | None = None
    equals: int = 1  # hosts with the best score

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of them, in their order."""
        return (*self.fixed.rules, *self.moving)


Said = dict[Hashable, HostVerdict]
"""What was said of hosts that do not fit, of requests of one shape: a batch says it again."""


def tell(tally: Tally, request: PlacementRequest, outcome: Outcome, said: Said) -> Told:
    """Put an outcome in words, as the tally is now (before the request takes its host)."""
    fitting = int(np.count_nonzero(outcome.fitting))
    if outcome.chosen is None:
        summary = _refusal(tally, request, outcome)
    else:
        summary = _choice(tally.fleet.hosts[outcome.chosen].name, outcome, fitting)
    rejected = {**outcome.fixed.rejected, **count_rejected(outcome.moving)}
    return Told(summary, len(tally.fleet), fitting, rejected, _writer(tally, outcome, said))


def _choice(name: str, outcome: Outcome, fitting: int) -> str:
    if fitting == 1:
        return f"placed on {name}: the only host that fits"
    phrases = [weight.phrase for weight in outcome.weights]
    if len(phrases) == 1:
        text = f"placed on {name}: {phrases[0]} of {fitting} that fit"
    else:
        text = f"placed on {name}: best of {fitting} that fit by {', '.join(phrases)}"
    return text if outcome.equals == 1 else f"{text}, one of {outcome.equals} equal ones"


def _refusal(tally: Tally, request: PlacementRequest, outcome: Outcome) -> str:
    """Every host counted once, under the first rule that it fails."""
    if not len(tally.fleet):
        return "no host fits: there is none to choose from"
    parts = []
    failing_first = (*outcome.fixed.failing_first, *outcome.failing_first)
    for rule, failing in zip(outcome.rules, failing_first, strict=True):
        number = int(np.count_nonzero(failing))
        if number:
            phrase = rule.one if number == 1 else rule.many
            parts.append(f"{number} {phrase}{largest_free(tally, rule, request, failing)}")
    return "no host fits: " + ", ".join(parts)


def _select(fleet: Fleet, outcome: Outcome) -> npt.NDArray[np.intp]:
    """The hosts that get a verdict: all of a small fleet, the telling ones of a large one."""
    if len(fleet) <= ALL:
        return np.arange(len(fleet))
    groups = [outcome.fixed.examples, examples(outcome.failing_first)]
    if outcome.ranked is not None and outcome.chosen is not None:
        groups.append(_best(outcome.ranked, outcome.chosen))
    return np.concatenate(groups)


def _best(ranked: Scores, chosen: int) -> npt.NDArray[np.intp]:
    """``BEST`` hosts that fit, ``chosen`` among them."""
    left, found = ranked.copy(), [chosen]
    left[chosen] = -np.inf
    while len(found) < BEST and left[best := int(left.argmax())] > -np.inf:
        found.append(best)
        left[best] = -np.inf
    return np.array(found, np.intp)


def _writer(tally: Tally, outcome: Outcome, said: Said) -> Callable[[], tuple[HostVerdict, ...]]:
    """Keep what the verdicts of the selected hosts need, and no more: a batch makes many."""
    fleet = tally.fleet
    selected = _select(fleet, outcome)
    claimed, limit = tally.claimed.rows(selected), fleet.limits.rows(selected)
    rules = outcome.rules
    passes = np.array([rule.passes[selected] for rule in rules]).T.tolist()
    values = {weight.name: weight.values[selected] for weight in outcome.weights}
    scores = None if outcome.ranked is None else outcome.ranked[selected]
    chosen = outcome.chosen

    def refused(row: int, host: int) -> HostVerdict:
        amounts = claimed.row(row)
        key = (host, amounts, *passes[row])
        if key not in said:
            view, limits = fleet.hosts[host], limit.row(row)
            reasons = tuple(
                Reason(code=rule.code, message=rule.why(view, amounts, limits))
                for rule, passed in zip(rules, passes[row], strict=True)
                if not passed
            )
            said[key] = HostVerdict(view.id, view.name, False, reasons)
        return said[key]

    def verdict(row: int) -> HostVerdict:
        host = int(selected[row])
        if scores is None or not all(passes[row]):
            return refused(row, host)
        view, each = fleet.hosts[host], {name: float(values[name][row]) for name in values}
        return HostVerdict(view.id, view.name, True, (), float(scores[row]), each)

    def rank(found: HostVerdict) -> tuple[bool, float, bool, str]:
        is_chosen = chosen is not None and found.host_id == fleet.hosts[chosen].id
        return (not found.fits, -(found.score or 0.0), not is_chosen, found.host_name)

    return lambda: tuple(sorted(map(verdict, range(selected.size)), key=rank))
