"""The lease is renewed by the poll that waits for wakes, unless syncs have to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.fakes import NoBlobs
from tests.bootstrap.raw import eventually
from tests.fixtures.answering import Answering
from tests.fixtures.running_agent import looping, parts
from virtmgr.agent import agent as agents
from virtmgr.agent import pacing
from virtmgr.agent.agent import Agent
from virtmgr.domain.workload import Usage


class Stage:
    """A host whose agent runs, and what its usage waits for."""

    def __init__(self, directory: Path) -> None:
        self.control_plane = Answering()
        self.is_free = threading.Event()
        self.is_free.set()
        self.measured = 0
        made = parts(directory, lambda: self.control_plane, NoBlobs(), host_usage=self._usage)
        self.guard, self.agent = made.guard, Agent(made)

    def _usage(self) -> Usage | None:
        self.is_free.wait()
        self.measured += 1
        return None

    def renews(self) -> bool:
        """Whether the polls of the next moments ask for the lease."""
        polls = self.control_plane.polls
        begin = len(polls)
        eventually(lambda: len(polls) > begin + 3)
        return all(polls[begin + 1 :])


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """All that lasts seconds lasts hundredths here."""
    for name in ("_LOOK_AT_HOST", "_SYNC_SECONDS"):
        monkeypatch.setattr(agents, name, getattr(agents, name) / 100)
    for name in ("INTERVAL", "BACK_OFF_MOST"):
        monkeypatch.setattr(pacing, name, getattr(pacing, name) / 100)
    made = Stage(tmp_path)
    with looping(made.agent):
        try:
            eventually(lambda: made.control_plane.syncs > 0)
            yield made
        finally:
            made.is_free.set()


def test_polls_renew_and_syncs_become_few(stage: Stage) -> None:
    stage.control_plane.pause = 1000.0
    eventually(stage.renews)
    before = stage.control_plane.syncs
    assert stage.renews()
    assert stage.renews()
    assert stage.control_plane.syncs <= before + 1  # one may have been on its way


def test_usage_is_measured_however_seldom_it_is_told(stage: Stage) -> None:
    stage.control_plane.pause = 1000.0
    eventually(stage.renews)
    measured, told = stage.measured, stage.control_plane.syncs
    eventually(lambda: stage.measured > measured + 3)
    assert stage.control_plane.syncs <= told + 1  # one may have been on its way


def test_syncs_without_news_are_sent_between_polls(stage: Stage) -> None:
    """So they need no connection of their own."""
    stage.control_plane.pause = 0.15
    eventually(stage.renews)
    between = stage.control_plane.between
    begin = len(between)
    eventually(lambda: len(between) > begin + 5 and all(between[-5:]))


def test_an_agent_whose_loop_is_stuck_keeps_no_lease(stage: Stage) -> None:
    eventually(stage.renews)
    stage.is_free.clear()
    eventually(lambda: not any(stage.control_plane.polls[-3:]))
    stage.is_free.set()
    eventually(stage.renews)


def test_where_there_is_a_guard_syncs_renew(stage: Stage) -> None:
    eventually(stage.renews)
    stage.guard.watch(frozenset({"00000000-0000-7000-8000-000000000001"}))
    eventually(lambda: not any(stage.control_plane.polls[-3:]))


def test_a_poll_that_does_not_renew_makes_it_sync(stage: Stage) -> None:
    stage.control_plane.pause = 1000.0
    eventually(stage.renews)
    stage.control_plane.renews = False
    before = stage.control_plane.syncs
    eventually(lambda: stage.control_plane.syncs > before + 3)


def test_after_an_outage_it_syncs_at_once(stage: Stage) -> None:
    stage.control_plane.pause = 1000.0
    eventually(stage.renews)
    stage.control_plane.is_away = True
    before = stage.control_plane.syncs
    eventually(lambda: stage.agent._pace.routine < 1000.0)
    stage.control_plane.is_away = False
    eventually(lambda: stage.control_plane.syncs > before)
    eventually(stage.renews)
