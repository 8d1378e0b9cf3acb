"""Hosts whose agents are real and whose workloads are imaginary."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Self

from tests.agent.fakes import CheckedWorld, FakeNetwork, FakeStorage
from tests.fixtures.watchdogs import end_watchdog
from virtmgr.agent.agent import Agent, Parts
from virtmgr.agent.files import StateFiles
from virtmgr.agent.guard import Guard
from virtmgr.agent.host_usage import host_usage
from virtmgr.agent.identity import Identity
from virtmgr.agent.images import ImageKeeper
from virtmgr.agent.networks import NetworkKeeper
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.reconciler import Reconciler
from virtmgr.agent.steps import StepRunner
from virtmgr.agent.streams import StreamServer
from virtmgr.bootstrap.agent import Connector
from virtmgr.domain.host import Fingerprint
from virtmgr.domain.sync import DesiredWorkload, ObservedPool
from virtmgr.domain.workload import GIB, Kind
from virtmgr.drivers.fake.driver import FakeDriver
from virtmgr.drivers.fake.world import FakeWorld
from virtmgr.enrollment import pki
from virtmgr.ports.clock import SystemClock
from virtmgr.ports.driver import WorkloadDriver


class _Storage(FakeStorage):
    def pools(self) -> tuple[ObservedPool, ...]:
        return (ObservedPool(name="default", path="/none", capacity=1024 * GIB, used=0),)


class FakeHost:
    """An enrolled host; its agent runs inside the ``with`` block."""

    def __init__(
        self,
        identity: Identity,
        machine_id: str,
        directory: Path,
        driver: Callable[[FakeWorld], FakeDriver] = FakeDriver,
    ) -> None:
        self.world = CheckedWorld()
        self._driver = driver(self.world)
        storage, networks = _Storage(directory / "volumes"), NetworkKeeper(FakeNetwork())
        files, clock, outbox = StateFiles(directory / "state"), SystemClock(), Outbox()
        connector = Connector(identity)
        images = ImageKeeper(
            storage=storage,
            source=connector,
            files=files,
            clock=clock,
            keep_for=timedelta(hours=24),
        )
        drivers: dict[Kind, WorkloadDriver] = dict.fromkeys(Kind, self._driver)
        self._guard = guard = Guard(directory / "fence")
        self._reconciler = Reconciler(
            runner=StepRunner(drivers, storage, networks, images),
            networks=networks,
            storage=storage,
            files=files,
            outbox=outbox,
            clock=clock,
            boot_id="boot-1",
            guard=guard,
        )
        context = pki.server_context(identity.certificate, identity.key, client_ca=identity.ca)
        self._streams = StreamServer(("127.0.0.1", 0), context, self._find, storage)
        self._agent = Agent(
            Parts(
                connect=connector,
                reconciler=self._reconciler,
                storage=storage,
                images=images,
                outbox=outbox,
                guard=guard,
                fingerprint=lambda: self._fingerprint(directory.name, machine_id),
                renew=lambda _: False,
                host_usage=lambda: host_usage(directory),
            )
        )
        self._thread = threading.Thread(target=self._agent.run, name="agent")

    def __enter__(self) -> Self:
        self._streams.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.fall_silent()
        self._streams.close()
        end_watchdog(self._guard)

    def fall_silent(self) -> None:
        """Sync no more. Twice is once."""
        self._agent.stop()
        self._thread.join()

    def _find(self, workload_id: str) -> tuple[WorkloadDriver, DesiredWorkload] | None:
        workload = self._reconciler.book.desired(workload_id)
        return None if workload is None else (self._driver, workload)

    def _fingerprint(self, hostname: str, machine_id: str) -> Fingerprint:
        return Fingerprint(
            hostname=hostname,
            machine_id=machine_id,
            boot_id="boot-1",
            architecture="x86_64",
            vcpus=32,
            memory=64 * GIB,
            disk=1024 * GIB,
            drivers=(self._driver.facts(),),
            stream_url=f"wss://127.0.0.1:{self._streams.port}",
        )
