"""Heartbeats that come to one process are renewed together, however many come."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bootstrap.raw import eventually
from virtmgr.domain.errors import Unavailable
from virtmgr.ports.unit_of_work import Heartbeat
from virtmgr.services.heartbeats import Beat, Heartbeats

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Database:
    """What heartbeats ask of it. The first transaction waits to be let go on."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go_on = threading.Event()
        self.error: Exception | None = None
        self.clock = SimpleNamespace(now=lambda: _NOW)
        self.hosts = SimpleNamespace(renew_all=self._renew_all, count_synced=lambda: 1)

    def units(self) -> Any:
        return nullcontext(self)

    def commit(self) -> None:
        pass

    def _renew_all(self, beats: Sequence[Heartbeat], now: datetime) -> Mapping[str, int]:
        assert now == _NOW
        self.batches.append(len(beats))
        self.go_on.wait()
        if self.error is not None:
            raise self.error
        return {beat.host_id: 7 for beat in beats}


class Hosts:
    """Beat at once, each in a thread of its own."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        self.answers: list[Beat | Exception | None] = []
        self._heartbeats = heartbeats
        self._threads: list[threading.Thread] = []

    def beat(self, count: int) -> None:
        for number in range(count):
            thread = threading.Thread(target=self._one, args=(f"host-{number}",), daemon=True)
            thread.start()
            self._threads.append(thread)

    def answered(self) -> list[Beat | Exception | None]:
        for thread in self._threads:
            thread.join(60)
        return self.answers

    def _one(self, host_id: str) -> None:
        try:
            answer: Beat | Exception | None = self._heartbeats.beat(Heartbeat(host_id, "1"))
        except Unavailable as error:
            answer = error
        self.answers.append(answer)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def hosts(database: Database) -> Hosts:
    services: Any = database
    return Hosts(Heartbeats(services))


def _waiting(hosts: Hosts) -> int:
    return len(hosts._heartbeats._waiting)


def test_what_comes_during_a_transaction_is_the_next_one(database: Database, hosts: Hosts) -> None:
    hosts.beat(1)
    eventually(lambda: database.batches == [1])
    hosts.beat(30)
    eventually(lambda: _waiting(hosts) == 30)
    database.go_on.set()
    answers = hosts.answered()
    assert database.batches == [1, 30]
    assert [answer.revision for answer in answers if isinstance(answer, Beat)] == [7] * 31
    hosts.beat(1)  # nobody is left who gathers, so it does
    assert len(hosts.answered()) == 32


def test_more_than_one_transaction_takes_go_on_at_once(database: Database, hosts: Hosts) -> None:
    hosts.beat(1)
    eventually(lambda: database.batches == [1])
    hosts.beat(501)
    eventually(lambda: _waiting(hosts) == 501)
    database.go_on.set()
    assert len(hosts.answered()) == 502
    assert database.batches == [1, 500, 1]


def test_who_waits_hears_of_a_failure_and_the_next_are_renewed(
    database: Database, hosts: Hosts
) -> None:
    database.error = OSError("it is away")
    database.go_on.set()
    hosts.beat(3)
    answers = hosts.answered()
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert "it is away" in str(answers[0])
    database.error = None
    hosts.beat(1)
    assert isinstance(hosts.answered()[-1], Beat)
