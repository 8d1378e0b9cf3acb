"""Highly available workloads start only while their host has a lease."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from tests.agent.fakes import Host, desired, eventually
from tests.agent.test_guard import watchdog_of
from virtmgr.agent.watchdog import STOPPED, FenceFiles, boottime
from virtmgr.domain.errors import HostError
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import State

_LONG = 600.0  # seconds of a lease that does not end in a test


def ha(id: str) -> DesiredWorkload:
    return desired(id, spec={"name": "ha1", "ha": {"enabled": True}})


def raising(error: Exception) -> Callable[..., None]:
    """A function that fails."""

    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.fixture
def id() -> str:
    """A workload's id: watchdogs guard nothing else."""
    return str(uuid.uuid4())


def test_it_waits_for_the_lease(host: Host, id: str) -> None:
    plain = desired("w1")
    host.apply(ha(id), plain)
    host.until(plain, State.RUNNING)  # which is nobody's business
    eventually(lambda: watchdog_of(host.directory / "fence") > 0)
    assert host.world.count("start", id) == 0
    host.guard.renewed(boottime(), _LONG)
    host.until(ha(id), State.RUNNING)
    assert host.world.count("start", id) == 1


def test_what_the_watchdog_stopped_runs_again_with_the_lease(host: Host, id: str) -> None:
    """Also what is never restarted when it ends by itself."""
    host.apply(ha(id))
    eventually(lambda: watchdog_of(host.directory / "fence") > 0)
    host.guard.renewed(boottime(), _LONG)
    host.until(ha(id), State.RUNNING)
    files = FenceFiles(host.directory / "fence")
    files.write_ids(STOPPED, [id])  # as the watchdog does
    host.world.end(id, signal=9)
    eventually(lambda: host.world.count("start", id) == 2)
    eventually(lambda: files.read_ids(STOPPED) == frozenset())
    host.world.end(id, exit_code=1)
    host.until(ha(id), State.FAILED)
    assert host.world.count("start", id) == 2


def test_a_lease_that_ends_while_note_is_taken_is_no_crash(
    host: Host, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.apply(ha(id))
    eventually(lambda: watchdog_of(host.directory / "fence") > 0)
    host.guard.renewed(boottime(), _LONG)
    host.until(ha(id), State.RUNNING)
    ended = HostError("its host has no lease now", code="no_lease")
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(host.guard, "note_stopped", raising(ended))
        files = FenceFiles(host.directory / "fence")
        files.write_ids(STOPPED, [id])
        host.world.end(id, signal=9)
        eventually(lambda: host.world.count("start", id) == 2)
    assert "workload.crashed" not in [entry["event"] for entry in logs]
    assert files.read_ids(STOPPED) == {id}


def test_a_restarted_agent_keeps_the_lease(host: Host, id: str) -> None:
    host.apply(ha(id))
    eventually(lambda: watchdog_of(host.directory / "fence") > 0)
    host.guard.renewed(boottime(), _LONG)
    host.until(ha(id), State.RUNNING)
    host.guard.close()
    host.restart_agent()
    assert host.guard.holds()
    host.until(ha(id), State.RUNNING)
    assert host.world.count("start", id) == 1
