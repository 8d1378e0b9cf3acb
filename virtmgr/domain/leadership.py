"""Who among several control planes does a job that must be done once: a lease with a term.

A holder renews its lease; one that dies lets it run out, and another takes over with the next
term. Times are the database's, so the clocks of the machines do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

LIFE: Final = timedelta(seconds=6)
RENEWAL: Final = timedelta(seconds=1.5)  # a third of the life, twice over, may be lost


@dataclass(kw_only=True)
class Leadership:
    """One job's lease. ``term`` counts holders: work of an earlier term is refused."""

    name: str
    holder: str
    term: int
    expires_at: datetime


@dataclass(frozen=True)
class Term:
    """A holder's own view of the lease that it has."""

    name: str
    holder: str
    number: int
    idle: timedelta  # how long nobody had the lease before this holder; 0 when it is renewed


def claim(
    found: Leadership | None, name: str, holder: str, now: datetime
) -> tuple[Leadership, Term] | None:
    """The lease as ``holder`` should have it from ``now`` on; None: somebody else has it."""
    if found is None:
        first = Leadership(name=name, holder=holder, term=1, expires_at=now + LIFE)
        return first, Term(name, holder, 1, timedelta.max)
    mine = found.holder == holder
    if not mine and now < found.expires_at <= now + LIFE:  # a later one: the clock was set back
        return None
    idle = max(timedelta(0), now - found.expires_at)
    number = found.term if mine else found.term + 1
    renewed = replace(found, holder=holder, term=number, expires_at=now + LIFE)
    return renewed, Term(name, holder, number, idle)
