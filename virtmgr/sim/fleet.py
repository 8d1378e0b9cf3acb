"""All simulated hosts at work in one process, on one event loop; faults, commands and figures."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtmgr.domain.errors import InvalidRequest
from virtmgr.sim import faults
from virtmgr.sim.faults import Fault, Kind
from virtmgr.sim.figures import Figures
from virtmgr.sim.guests import total
from virtmgr.sim.runner import Condition, Runner

Tell = Callable[[str], None]
"""Called with a line for people."""


@dataclass(frozen=True)
class Course:
    """How a run goes; times in seconds.

    ``ramp`` is within which all hosts come up, ``lasts`` the end (None: until it is stopped),
    ``every`` the time between two lines of figures.
    """

    faults: Sequence[Fault] = ()
    ramp: float = 10.0
    lasts: float | None = None
    every: float = 10.0
    seed: int = 1
    report: Path | None = None  # a file that figures are appended to, one JSON document a line


@dataclass
class _State:
    begun: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)
    settling: float | None = None  # since when hosts have been on their way back
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Fleet:
    """Made and run inside of an event loop."""

    def __init__(
        self, runners: Sequence[Runner], figures: Figures, course: Course, tell: Tell
    ) -> None:
        self._runners = runners
        self._figures = figures
        self._course = course
        self._tell = tell
        self._dice = random.Random(course.seed)
        self._end = asyncio.Event()
        self._state = _State()

    async def run(self) -> None:
        """Until ``lasts`` is over, SIGTERM, SIGINT or 'quit'."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        loop.add_signal_handler(signal.SIGUSR1, self.command, "restart all")
        threading.Thread(target=self._listen, args=(loop,), daemon=True).start()
        self._do(self._come_up())
        self._do(self._report_for_ever())
        for fault in faults.in_order(self._course.faults):
            self._do(self._happen_at(fault))
        try:
            async with asyncio.timeout(self._course.lasts):
                await self._end.wait()
        except TimeoutError:
            self._tell("the time is over")
        for task in self._state.tasks:
            task.cancel()
        self._report()
        await asyncio.gather(*(runner.end() for runner in self._runners))

    def command(self, line: str) -> None:
        """Do what a line of standard input says."""
        line = line.strip()
        if line in ("quit", "exit"):
            self._end.set()
        elif line == "status":
            self._report()
        elif line == "back":
            self._mend([n for n, one in enumerate(self._runners) if one.condition != "well"])
        elif line:
            try:
                fault = faults.parse_command(line, time.monotonic() - self._state.begun)
            except InvalidRequest as error:
                self._tell(f"{error.message}; {error.hint}")
                return
            self._do(self._happen(fault))

    # -- what happens ------------------------------------------------------------------------

    async def _come_up(self) -> None:
        self._state.settling = time.monotonic()
        pause = self._course.ramp / max(len(self._runners), 1)
        for number, runner in enumerate(self._runners):
            late = self._state.begun + number * pause - time.monotonic()
            if late > 0 or number % 50 == 0:
                await asyncio.sleep(max(late, 0.0))
            runner.start()
        self._do(self._watch_settling())

    async def _happen_at(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        await self._happen(fault)

    async def _happen(self, fault: Fault) -> None:
        well = [n for n, one in enumerate(self._runners) if one.condition is Condition.WELL]
        hosts = faults.victims(fault, well, self._dice)
        self._tell(f"now: {fault} ({len(hosts)} hosts)")
        for number in hosts:
            runner = self._runners[number]
            if fault.kind is Kind.LOSE:
                runner.lose()
            elif fault.kind is Kind.PARTITION:
                runner.partition()
            else:
                runner.restart()
        if fault.kind is Kind.RESTART:
            self._do(self._watch_settling())
        elif fault.lasts is not None:
            await asyncio.sleep(fault.lasts)
            self._mend(hosts)

    def _mend(self, hosts: Sequence[int]) -> None:
        self._tell(f"now: {len(hosts)} hosts come back")
        for number in hosts:
            self._runners[number].mend()
        self._do(self._watch_settling())

    async def _watch_settling(self) -> None:
        """Say when every host that is well has synced again."""
        begun = time.monotonic()
        while not all(one.synced for one in self._runners if one.condition is Condition.WELL):
            await asyncio.sleep(0.1)
        seconds = time.monotonic() - begun
        self._tell(f"all hosts that are well have synced, {seconds:.1f} s after")
        self._append({"settled_seconds": round(seconds, 2)})
        gc.freeze()  # millions of objects that stay: to look for cycles among them takes seconds

    def _do(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    # -- what is told ------------------------------------------------------------------------

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._course.every)
            self._report()

    def _report(self) -> None:
        clock = time.monotonic()
        seconds, self._state.reported = clock - self._state.reported, clock
        states = Counter(str(one.condition) for one in self._runners)
        synced = sum(one.synced for one in self._runners if one.condition is Condition.WELL)
        workloads, running = total(one.host.guests for one in self._runners)
        figures = self._figures.take().report(seconds)
        self._append(
            {
                "at": round(clock - self._state.begun, 1),
                "hosts": dict(states),
                "synced": synced,
                "workloads": workloads,
                "running": running,
                **figures,
            }
        )
        errors = ", ".join(f"{count} × {what}" for what, count in figures["errors"].items())
        self._tell(
            f"{clock - self._state.begun:6.0f} s  {synced}/{len(self._runners)} simulated hosts "
            f"synced, {running}/{workloads} workloads run; {figures['syncs_a_second']} syncs/s, "
            f"p50 {figures['sync_p50_ms']} ms, p95 {figures['sync_p95_ms']} ms"
            + (f"; errors: {errors}" if errors else "")
        )

    def _append(self, document: dict[str, Any]) -> None:
        if self._course.report is not None:
            with self._course.report.open("a") as file:
                file.write(json.dumps(document) + "\n")

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own: standard input may be a terminal, a pipe or nothing."""
        for line in sys.stdin:
            if loop.is_closed():
                return
            loop.call_soon_threadsafe(self.command, line)
