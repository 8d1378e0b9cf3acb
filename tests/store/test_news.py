"""News from process to process; each relay here stands for a process of its own."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.fixtures.postgresql import PostgresqlServer
from virtmgr.store.news import News, NoRelay, Relay, relay_of

pytestmark = pytest.mark.postgresql


@pytest.fixture
def database(postgresql: PostgresqlServer) -> Iterator[str]:
    name = postgresql.create_database()
    yield name
    postgresql.drop_database(name)


@contextmanager
def _listening(url: str) -> Iterator[tuple[Relay, queue.Queue[News]]]:
    relay = relay_of(url)
    heard: queue.Queue[News] = queue.Queue()
    relay.start(heard.put)
    assert heard.get(timeout=30) == News(missed=True)
    yield relay, heard
    relay.close()


def test_others_hear_what_one_tells(postgresql: PostgresqlServer, database: str) -> None:
    url = postgresql.url(database)
    with _listening(url) as (first, own), _listening(url) as (_, others):
        _tell(first, own, others)


def _tell(first: Relay, own: queue.Queue[News], others: queue.Queue[News]) -> None:
    first.committed()
    assert others.get(timeout=30) == News()
    many = [f"01997d2e-7c1e-7aaa-8000-{number:012x}" for number in range(1000)]
    first.done(many)
    first.wake("host")
    finished: list[str] = []
    woken: list[str] = []
    while len(finished) < len(many):
        news = others.get(timeout=30)
        finished += news.done
        woken += news.wake
    assert finished == many
    assert woken == ["host"]
    assert own.empty(), "nobody hears what he told himself"


def test_a_lost_connection_is_made_anew(postgresql: PostgresqlServer, database: str) -> None:
    url = postgresql.url(database)
    with _listening(url) as (first, _), _listening(url) as (_, others):
        first.committed()
        others.get(timeout=30)
        with psycopg.connect(postgresql.url("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [database],
            )
        assert others.get(timeout=30) == News(missed=True)
        _tell_until_heard(first, others)


def _tell_until_heard(first: Relay, others: queue.Queue[News]) -> None:
    for _ in range(20):
        first.done(["x"])
        try:
            assert others.get(timeout=3) == News(done=("x",))
            return
        except queue.Empty:  # it went the way of the connection that tells: a hint may be lost
            continue
    pytest.fail("no news came")


def test_sqlite_has_none(tmp_path: object) -> None:
    assert isinstance(relay_of(f"sqlite:///{tmp_path}/x.db"), NoRelay)
