"""The lease of a host, and the watchdog that ends workloads with it: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.agent.fakes import NoBlobs
from tests.fixtures.answering import Answering
from tests.fixtures.running_agent import looping, parts
from virtmgr.agent import watchdog
from virtmgr.agent.agent import Agent
from virtmgr.agent.guard import Guard
from virtmgr.agent.watchdog import (
    ALIVE,
    BEAT,
    DEADLINE,
    GUARDED,
    STOPPED,
    FenceFiles,
    belonging,
    boottime,
)
from virtmgr.domain.errors import HostError

_PATIENCE = 60.0
_LEASE = "1.5"  # seconds
_AGENT = """
import os, sys, time
from pathlib import Path
from virtmgr.agent.guard import Guard
from virtmgr.agent.watchdog import boottime
directory, seconds = Path(os.environ["DIRECTORY"]), float(os.environ["LEASE"])
guard = Guard(directory)
guard.watch(frozenset({os.environ["WORKLOAD"]}))
guard.start(lambda: None)
while not guard.holds():
    guard.renewed(boottime(), seconds)
    time.sleep(0.05)
if os.environ["HOW"] == "starting":
    with guard.starting():
        print("leased", flush=True)
        time.sleep(1000)
print("leased", flush=True)
time.sleep(1000)
"""


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def workload(id: str, program: str = "qemu-of-tests") -> Iterator[subprocess.Popen[bytes]]:
    """A process that belongs to a workload, by its command line; it waits for input."""
    with subprocess.Popen(
        [program, "-c", "read line", id], executable="/bin/sh", stdin=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def agent(directory: Path, id: str, how: str = "idle") -> Iterator[subprocess.Popen[str]]:
    """A process that gets one lease, and no other; it has it when this returns."""
    environment = {**os.environ, "DIRECTORY": str(directory), "WORKLOAD": id, "LEASE": _LEASE}
    with subprocess.Popen(
        [sys.executable, "-c", _AGENT], env={**environment, "HOW": how},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert "leased\n" in iter(process.stdout.readline, "")
            yield process
        finally:
            process.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Whatever watchdog is left there is ended."""
    place = tmp_path / "fence"
    yield place
    kill_watchdog(place)


def watchdog_of(directory: Path) -> int:
    words = (directory / ALIVE).read_text().split()
    return int(words[0]) if words else 0


def kill_watchdog(directory: Path) -> None:
    try:
        os.kill(watchdog_of(directory), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        pass


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL, None])
def test_it_ends_with_the_lease(directory: Path, fault: signal.Signals | None) -> None:
    """Whatever becomes of the agent; what is not highly available is left alone."""
    id, other = str(uuid.uuid4()), str(uuid.uuid4())
    with agent(directory, id) as running, workload(id) as process, workload(other) as free:
        if fault is not None:
            running.send_signal(fault)
        eventually(lambda: process.poll() is not None)
        assert boottime() >= FenceFiles(directory).read_time("deadline")
        assert FenceFiles(directory).read_ids(STOPPED) == {id}
        assert free.poll() is None
        with workload(id) as late:  # a start that was under way somewhere else
            eventually(lambda: late.poll() is not None)
        if fault is None:
            assert running.poll() is None


def test_a_watchdog_without_an_agent_ends(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once nothing is left of what it guards."""
    monkeypatch.setattr(watchdog, "_SETTLED", 3)
    files = FenceFiles(directory)
    files.write_ids(GUARDED, [str(uuid.uuid4())])
    watchdog.Watchdog(directory).run()
    assert files.read_time(BEAT) > 0


def test_an_agent_in_the_middle_of_a_start_is_killed(directory: Path) -> None:
    id = str(uuid.uuid4())
    with agent(directory, id, "starting") as running:
        running.send_signal(signal.SIGSTOP)
        eventually(lambda: running.poll() is not None)


def test_a_watchdog_that_hangs_or_dies_is_replaced(directory: Path) -> None:
    guard = Guard(directory)
    guard.watch(frozenset({str(uuid.uuid4())}))
    guard.start(lambda: None)
    try:
        for fault in (signal.SIGSTOP, signal.SIGKILL):
            eventually(lambda: FenceFiles(directory).read_time(BEAT) > boottime() - 1)
            before = watchdog_of(directory)
            os.kill(before, fault)
            eventually(lambda before=before: watchdog_of(directory) not in (0, before))
    finally:
        guard.close()


def test_the_lease_needs_a_watchdog(directory: Path) -> None:
    guard = Guard(directory)
    guard.watch(frozenset({str(uuid.uuid4())}))
    guard.renewed(boottime(), 60)  # nobody supervises: there is no watchdog
    assert not guard.holds()
    with pytest.raises(HostError, match="no lease"), guard.starting():
        pass


def test_the_lease_begins_when_the_request_was_sent(directory: Path) -> None:
    back: list[bool] = []
    guard = Guard(directory)
    guard.watch(frozenset({str(uuid.uuid4())}))
    guard.start(lambda: back.append(True))
    try:
        guard.renewed(boottime() - 100, 60)  # an answer that comes too late
        eventually(lambda: watchdog_of(directory) > 0)
        assert not guard.holds()
        guard.renewed(boottime(), 60)
        eventually(guard.holds)
        eventually(lambda: back == [True])
        again = Guard(directory)  # an agent that was restarted
        assert again.holds()
        with again.starting():
            pass
    finally:
        guard.close()


def test_a_shorter_lease_ends_a_longer_one(directory: Path) -> None:
    guard = Guard(directory)
    guard.watch(frozenset({str(uuid.uuid4())}))
    guard.start(lambda: None)
    try:
        guard.renewed(boottime(), 60)
        eventually(guard.holds)
        guard.granted(boottime() - 10, 5)
        assert not guard.holds()
        assert FenceFiles(directory).read_time(DEADLINE) < boottime()
    finally:
        guard.close()


def test_what_comes_with_a_short_lease_finds_it_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workload that comes to a host is started elsewhere after the short lease, whatever was
    granted while there was nothing to guard."""
    files = FenceFiles(tmp_path / "fence")
    files.write_time(DEADLINE, boottime() + 1000)  # of the time before
    made = parts(tmp_path, Answering, NoBlobs())
    left: list[float] = []
    apply = made.reconciler.apply

    def note(*wishes: Any, **more: Any) -> None:
        left.append(files.read_time(DEADLINE) - boottime())
        apply(*wishes, **more)

    monkeypatch.setattr(made.reconciler, "apply", note)
    with looping(Agent(made)):
        eventually(lambda: bool(left))
    assert left[0] <= 30


def test_who_only_names_a_workload_is_left_alone() -> None:
    id = str(uuid.uuid4())
    with workload(id) as its, workload(id, "/usr/bin/crun") as runtime, workload(id, "less"):
        assert {pid for pid, _ in belonging([id])} == {its.pid, runtime.pid}


@pytest.mark.parametrize("id", ["", "w", "1234", "0123456789abcdef0123456789abcdef"])
def test_what_is_no_id_is_never_looked_for(directory: Path, id: str) -> None:
    """A word that is in the command lines of others must not end them."""
    guard = Guard(directory)
    with pytest.raises(ValueError, match="no id"):
        guard.watch(frozenset({id}))
    with pytest.raises(ValueError, match="no id"):
        list(belonging([id]))
    (directory / GUARDED).write_text(json.dumps([id]))
    assert FenceFiles(directory).read_ids(GUARDED) == frozenset()
