"""Why this host, and why no other: the answer that a placement carries.

A fleet of up to ``ALL`` hosts is explained host by host. Of a larger one, the explanation lists the
best ``BEST`` hosts that fit and a few that fail each rule first, and counts all of them by
reason: what it says is true of the whole fleet, and it costs no more than a few hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import starmap
from typing import Any

import numpy as np
import numpy.typing as npt

from virtmgr.domain.scheduling.fleet import Fleet
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.rules import Filtered, Rule, first, largest_free
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.scheduling.weighers import NEVER, Ranked
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

    def work_out(self) -> None:
        """Do so now: all that it needs is at hand."""
        _ = self._told

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

    fixed: Filtered
    moving: Filtered
    ranked: Ranked | None = None  # None: none fits
    chosen: int | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of them, in their order."""
        return (*self.fixed.rules, *self.moving.rules)


Said = dict[Hashable, HostVerdict]
"""What was said of hosts, of requests of one shape: a batch says it again."""


def tell(tally: Tally, request: PlacementRequest, outcome: Outcome, said: Said) -> Told:
    """Put an outcome in words, as the tally is now (before the request takes its host)."""
    fitting = outcome.moving.count
    if outcome.chosen is None:
        summary = _refusal(tally, request, outcome)
    else:
        summary = _choice(tally.fleet.hosts[outcome.chosen].name, outcome, fitting)
    rejected = {**outcome.fixed.rejected, **outcome.moving.rejected}
    return Told(summary, len(tally.fleet), fitting, rejected, _writer(tally, outcome, said))


def _choice(name: str, outcome: Outcome, fitting: int) -> str:
    if fitting == 1:
        return f"placed on {name}: the only host that fits"
    assert outcome.ranked is not None
    phrases = [weight.phrase for weight in outcome.ranked.weights]
    if len(phrases) == 1:
        text = f"placed on {name}: {phrases[0]} of {fitting} that fit"
    else:
        text = f"placed on {name}: best of {fitting} that fit by {', '.join(phrases)}"
    equals = int(np.count_nonzero(outcome.ranked.equals))
    return text if equals == 1 else f"{text}, one of {equals} equal ones"


def _refusal(tally: Tally, request: PlacementRequest, outcome: Outcome) -> str:
    """Every host counted once, under the first rule that it fails."""
    if not len(tally.fleet):
        return "no host fits: there is none to choose from"
    parts = []
    failing_first = (*outcome.fixed.failing_first, *outcome.moving.failing_first)
    for rule, failing in zip(outcome.rules, failing_first, strict=True):
        number = int(np.count_nonzero(failing))
        if number:
            phrase = rule.one if number == 1 else rule.many
            parts.append(f"{number} {phrase}{largest_free(tally, rule, request, failing)}")
    return "no host fits: " + ", ".join(parts)


def _writer(tally: Tally, outcome: Outcome, said: Said) -> Callable[[], tuple[HostVerdict, ...]]:
    """Keep what the verdicts of the selected hosts need, and no more: a batch makes many."""
    hosts, chosen = tally.fleet.hosts, outcome.chosen
    praised, blame = _praised(tally.fleet, outcome, said), _blame(tally, outcome, said)

    def rank(verdict: HostVerdict) -> tuple[bool, float, bool, str]:
        is_chosen = chosen is not None and verdict.host_id == hosts[chosen].id
        return (not verdict.fits, -(verdict.score or 0.0), not is_chosen, verdict.host_name)

    return lambda: tuple(sorted((*praised, *blame()), key=rank))


def _praised(fleet: Fleet, outcome: Outcome, said: Said) -> list[HostVerdict]:
    """The hosts that fit: all of a small fleet, the best of a large one."""
    ranked = outcome.ranked
    if ranked is None:
        return []
    best = np.flatnonzero(outcome.moving.passing) if len(fleet) <= ALL else _best(outcome)
    names = [weight.name for weight in ranked.weights]
    values = [weight.values[best].tolist() for weight in ranked.weights]
    keys = list(zip(best.tolist(), ranked.scores[best].tolist(), *values, strict=True))
    for key in keys:
        if key not in said:
            view, scores = fleet.hosts[key[0]], dict(zip(names, key[2:], strict=True))
            said[key] = HostVerdict(view.id, view.name, True, (), key[1], scores)
    return [said[key] for key in keys]


def _best(outcome: Outcome) -> npt.NDArray[np.intp]:
    """``BEST`` hosts that fit, the chosen one among them."""
    assert outcome.ranked is not None
    assert outcome.chosen is not None
    others = [host for host in first(outcome.ranked.equals, BEST) if host != outcome.chosen]
    found = [outcome.chosen, *others[: BEST - 1]]
    if len(found) < BEST < outcome.moving.count:
        left = outcome.ranked.scores.copy()
        left[found] = NEVER
        while len(found) < BEST:
            found.append(int(left.argmax()))
            left[found[-1]] = NEVER
    return np.array(found, np.intp)


def _blame(tally: Tally, outcome: Outcome, said: Said) -> Callable[[], Iterable[HostVerdict]]:
    """The hosts that do not fit: all of a small fleet, a few for each rule of a large one."""
    fleet, rules = tally.fleet, outcome.rules
    if len(fleet) <= ALL:
        refused = np.flatnonzero(~outcome.moving.passing)
    else:
        refused = np.concatenate([outcome.fixed.examples, outcome.moving.examples])
    if not refused.size:
        return tuple
    claimed, limit = tally.claimed.rows(refused), fleet.limits.rows(refused)
    passes = np.array([rule.passes[refused] for rule in rules]).T.tolist()
    numbers = tuple(rule.numbers for rule in outcome.moving.rules)

    def verdict(row: int, host: int) -> HostVerdict:
        amounts = claimed.row(row)
        key = (host, amounts, numbers, *passes[row])
        if key not in said:
            view, limits = fleet.hosts[host], limit.row(row)
            reasons = tuple(
                Reason(code=rule.code, message=rule.why(view, amounts, limits))
                for rule, passed in zip(rules, passes[row], strict=True)
                if not passed
            )
            said[key] = HostVerdict(view.id, view.name, False, reasons)
        return said[key]

    return lambda: starmap(verdict, enumerate(refused.tolist()))
