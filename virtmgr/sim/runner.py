"""One simulated host at work: its connections, and its time."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from enum import StrEnum

from virtmgr.agent.control_plane import Wake
from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.sync import SyncResponse
from virtmgr.domain.sync_order import OVERTAKEN
from virtmgr.sim.behaviour import now
from virtmgr.sim.connection import Connections
from virtmgr.sim.figures import Figures
from virtmgr.sim.host import SimulatedHost

_LONGEST_LOOK = 1.0  # seconds between looks at the lease, where it matters


class Condition(StrEnum):
    """How a simulated host is."""

    WELL = "well"
    LOST = "lost"
    PARTITIONED = "partitioned"


class Runner:
    """Runs a host until it is cancelled; ``lose``, ``partition``, ``restart`` and ``mend`` happen
    to it meanwhile."""

    def __init__(self, host: SimulatedHost, connections: Connections, figures: Figures) -> None:
        self.host = host
        self.condition = Condition.WELL
        self.synced = False  # since it was last started or mended
        self._connections = connections
        self._figures = figures
        self._news = asyncio.Event()
        self._heard = asyncio.Event()  # the control plane has heard of the agent
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Let it boot."""
        self.host.boot(now())
        self._speak()

    def lose(self) -> None:
        """Its power goes."""
        self._fall_silent()
        self.condition = Condition.LOST

    def partition(self) -> None:
        """It reaches nobody any more."""
        self._fall_silent()
        self.condition = Condition.PARTITIONED
        self._tasks = [asyncio.create_task(self._live_on())]

    def restart(self) -> None:
        """Its agent is started again."""
        self._fall_silent()
        self.host.restart()
        self._speak()

    def mend(self) -> None:
        """What had happened to it is over."""
        was, self.condition = self.condition, Condition.WELL
        if was is Condition.LOST:
            self.start()
        elif was is Condition.PARTITIONED:
            self._fall_silent()
            self._speak()

    async def end(self) -> None:
        """Stop, and wait for that."""
        tasks = self._tasks
        self._fall_silent()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def _speak(self) -> None:
        self.synced = False
        self._heard.clear()
        loops = (self._sync_for_ever(), self._wait_for_wakes())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    def _fall_silent(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._connections.close()

    # -- syncing -----------------------------------------------------------------------------

    async def _sync_for_ever(self) -> None:
        while True:
            try:
                await self._sync()
            except VirtmgrError as error:
                self._figures.errors[_short(error)] += 1
                self.host.failed(overtaken=error.code == OVERTAKEN)
            await self._pass_time(time.monotonic() + self.host.pause())

    async def _sync(self) -> None:
        clock = time.monotonic()
        sent = self.host.request(now(), clock)
        body = sent.request.model_dump_json(exclude_unset=True).encode()
        content = await self._connections.ask("POST", "/agent/v1/sync", body)
        response = SyncResponse.read(content)
        self.host.answered(sent, response, now(), clock)
        self.synced = True
        self._heard.set()
        self._figures.sync_seconds.append(time.monotonic() - clock)
        self._figures.sent += len(body)
        self._figures.received += len(content)

    async def _pass_time(self, until: float) -> None:
        """Let guests live until it is time for the next sync, or there is news."""
        host = self.host
        while True:
            clock, moment = time.monotonic(), now()
            host.guests.advance(moment)
            host.watch_lease(moment, clock)
            idle = self._connections.close_idle(clock)
            ends = until if host.is_failing else min(until, host.outbox.due)
            if clock >= ends:
                return
            wait = min(ends - clock, idle)
            if host.guests.due is not None:
                wait = min(wait, max((host.guests.due - moment).total_seconds(), 0.0))
            if host.guests.highly_available:
                wait = min(wait, _LONGEST_LOOK)
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()

    async def _live_on(self) -> None:
        """Without the control plane."""
        while True:
            await self._pass_time(time.monotonic() + _LONGEST_LOOK)
            await asyncio.sleep(_LONGEST_LOOK / 10)

    # -- being woken -------------------------------------------------------------------------

    async def _wait_for_wakes(self) -> None:
        await self._heard.wait()
        while True:
            revision = self.host.revision
            seconds, renewing = self.host.poll(time.monotonic())
            target = f"/agent/v1/wake?revision={revision}&timeout={seconds:.1f}"
            target += "&renew=1" if renewing else ""
            try:
                content = await self._connections.ask("GET", target, patience=seconds + 30)
            except VirtmgrError as error:
                self._figures.errors[f"poll, {_short(error)}"] += 1
                self.host.polled(None, time.monotonic(), renewing=renewing)
                self._news.set()
                await asyncio.sleep(random.uniform(0.5, 2.0))
                continue
            self._figures.polls += 1
            answer = Wake.read(content)
            self._figures.beats += answer.renewed
            self.host.polled(answer, time.monotonic(), renewing=renewing)
            if answer.wake:
                self._figures.wakes += 1
                self.host.outbox.poke()
                self._news.set()
                await self._await_revision_change(revision)
            elif self.host.is_due_between_polls(time.monotonic()):
                await self._let_sync()

    async def _let_sync(self) -> None:
        """As ``agent.agent.Agent`` does."""
        before = self.host.syncs
        self.host.outbox.poke()
        self._news.set()
        for _ in range(100):
            if self.host.syncs != before:
                return
            await asyncio.sleep(0.01)

    async def _await_revision_change(self, before: int) -> None:
        for _ in range(50):
            if self.host.revision != before:
                return
            await asyncio.sleep(0.01)


def _short(error: VirtmgrError) -> str:
    return f"{error.code}: {error.message}"[:160]
