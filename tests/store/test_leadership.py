"""One leads, another takes over: on both databases, with real transactions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from virtmgr.domain.leadership import LIFE, Leadership, Term, claim
from virtmgr.services.container import Services
from virtmgr.services.leadership import Leader
from virtmgr.store import tables
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def _lease(**given: object) -> Leadership:
    lease = Leadership(name="x", holder="a", term=3, expires_at=NOW + LIFE / 2)
    return replace(lease, **given)  # type: ignore[arg-type]


def test_a_live_lease_is_its_holders() -> None:
    assert claim(_lease(), "x", "b", NOW) is None
    renewed = claim(_lease(), "x", "a", NOW)
    assert renewed == (_lease(expires_at=NOW + LIFE), Term("x", "a", 3, timedelta(0)))


def test_who_takes_over_has_the_next_term() -> None:
    lease = _lease(expires_at=NOW - timedelta(seconds=4))
    taken = claim(lease, "x", "b", NOW)
    assert taken is not None
    assert taken[1] == Term("x", "b", 4, timedelta(seconds=4))


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    assert claim(_lease(expires_at=NOW + timedelta(hours=1)), "x", "b", NOW) is not None


def _services(units: SqlUnitOfWorkFactory) -> Services:
    return Services(units=units, blobs=None)  # type: ignore[arg-type]


def _lapse(url: str, seconds: float) -> None:
    """As if the holder had died so long ago."""
    engine = make_engine(url)
    with engine.begin() as connection:
        past = datetime.now(UTC) - timedelta(seconds=seconds)
        connection.execute(update(tables.leaderships).values(expires_at=past))
    engine.dispose()


def test_one_leads_at_a_time(url: str, units: SqlUnitOfWorkFactory) -> None:
    first, second = Leader(_services(units)), Leader(_services(units))
    for _ in range(2):
        first.look()
        second.look()
        assert first.term is not None
        assert second.term is None
    stale = first.term
    _lapse(url, 0.1)
    second.look()
    first.look()
    assert second.term is not None
    assert first.term is None
    assert second.term.number == stale.number + 1
    with units() as uow:
        assert not uow.leaderships.holds(stale)
        assert uow.leaderships.holds(second.term)
        assert uow.leaderships.live()
    second.resign()
    with units() as uow:
        assert not uow.leaderships.live()
    first.look()
    assert first.term is not None
    assert not first.settled(1), "it was the first one ever"
    assert second.settled(1e9), "a take-over is no break"


def test_a_break_is_noticed(url: str, units: SqlUnitOfWorkFactory) -> None:
    leader = Leader(_services(units))
    leader.look()
    leader._break = 0.0
    leader.look()
    assert leader._break == 0.0
    _lapse(url, 60)  # the database was away, or everything was
    leader.look()
    assert not leader.settled(30)
