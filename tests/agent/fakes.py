"""A host for the agent's tests: the fake driver's guests, and a network and storage that behave."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from tests.fixtures.watchdogs import end_watchdog
from virtmgr.agent.departing import Departures
from virtmgr.agent.files import StateFiles
from virtmgr.agent.guard import Guard
from virtmgr.agent.images import ImageKeeper
from virtmgr.agent.networks import NetworkKeeper
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.reconciler import Reconciler
from virtmgr.agent.steps import StepRunner
from virtmgr.domain.errors import ImageError, StorageError, VirtmgrError
from virtmgr.domain.image import ImageManifest
from virtmgr.domain.network import mac_address
from virtmgr.domain.sync import (
    DesiredNetwork,
    DesiredNic,
    DesiredWorkload,
    ObservedPool,
    ObservedWorkload,
)
from virtmgr.domain.workload import Kind, State, WorkloadSpec
from virtmgr.drivers.fake.driver import FakeDriver
from virtmgr.drivers.fake.world import FakeWorld
from virtmgr.drivers.storage.arrivals import Arrivals
from virtmgr.ports.clock import SystemClock
from virtmgr.ports.driver import LocalImage, Luggage
from virtmgr.ports.host import BlobSource, Progress

_CHANGES = frozenset(
    {"prepare", "clone", "arrive", "start", "pause", "resume", "update", "destroy"}
)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; that it never does is the failure."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.003)


def desired_nic(number: int, network_id: str) -> DesiredNic:
    id = f"01997d2e-7c1e-7aaa-8000-{number:012x}"
    return DesiredNic(id=id, index=0, network_id=network_id, mac=mac_address(id))


def desired_network(id: str) -> DesiredNetwork:
    return DesiredNetwork(id=id, name=id, type="nat", bridge=f"vmb{id}")


def desired(id: str = "w1", *, generation: int = 1, **given: Any) -> DesiredWorkload:
    """A container that should run; ``spec`` among ``given`` holds fields of its spec."""
    fields = {"name": id, "kind": "container", "image": "x", "restart": "never", "stop_timeout": 60}
    kind = given.get("kind", Kind.CONTAINER)
    spec = WorkloadSpec.model_validate(fields | {"kind": kind} | given.pop("spec", {}))
    document = {"id": id, "project": "p", "name": id, "kind": kind, "init": None, "revision": 1}
    return DesiredWorkload.model_validate(
        document | {"spec": spec, "state": "running", "generation": generation} | given
    )


class CheckedWorld(FakeWorld):
    """Notes where two changes of one workload are made at once, which must never be."""

    def __init__(self) -> None:
        super().__init__()
        self.overlaps: list[tuple[str, str]] = []
        self._changing: set[str] = set()

    @contextmanager
    def verb(self, name: str, workload_id: str) -> Iterator[None]:
        if name not in _CHANGES:
            with super().verb(name, workload_id):
                yield
            return
        with self._lock:
            if workload_id in self._changing:
                self.overlaps.append((name, workload_id))
            self._changing.add(workload_id)
        try:
            with super().verb(name, workload_id):
                yield
        finally:
            with self._lock:
                self._changing.discard(workload_id)

    def count(self, verb: str, workload_id: str) -> int:
        return self.calls.count((verb, workload_id))


class StubbornDriver(FakeDriver):
    """Workloads in ``stubborn`` end only when their time is up, or by force."""

    def __init__(self, world: FakeWorld) -> None:
        super().__init__(world)
        self.stubborn: dict[str, threading.Event] = {}
        self.stopping: set[str] = set()
        self.after_start: Callable[[str], None] = lambda _: None
        self.id_bases: dict[str, int] = {}

    def start(self, workload: DesiredWorkload, provision: Any) -> None:
        super().start(workload, provision)
        self.id_bases[workload.id] = provision.id_base
        self.after_start(workload.id)

    def stop(self, workload_id: str, *, timeout: float, force: bool) -> None:
        ended = self.stubborn.get(workload_id)
        if ended is not None and force:
            ended.set()
        elif ended is not None:
            self.stopping.add(workload_id)
            force = not ended.wait(timeout)
        super().stop(workload_id, timeout=timeout, force=force)


class FakeStorage:
    """Volumes as empty files; images that need nothing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.broken = False
        directory.mkdir(exist_ok=True)
        came = directory.with_name(directory.name + "-arrivals")
        came.mkdir(exist_ok=True)
        self._arrivals = Arrivals(came)

    def ensure_image(
        self, image_id: str, manifest: ImageManifest, source: BlobSource, progress: Progress
    ) -> LocalImage:
        del image_id, manifest, source, progress
        return LocalImage()

    def collect_images(self, keep: Iterable[ImageManifest]) -> int:
        del keep
        return 0

    def ensure_volume(self, volume_id: str, size: int) -> Path:
        path = self._directory / volume_id
        path.touch()
        with path.open("r+b") as file:
            file.truncate(size)
        return path

    def copy_volume(self, source_id: str, volume_id: str) -> None:
        shutil.copy(self._directory / source_id, self._directory / volume_id)

    def remove_volume(self, volume_id: str) -> None:
        if self.broken:
            raise StorageError(f"removing volume {volume_id} failed: the disk is read-only")
        (self._directory / volume_id).unlink(missing_ok=True)

    def pack(self, luggage: Luggage) -> Iterator[bytes]:
        return self._arrivals.pack(luggage)

    def receive(self, arrival_id: str, stream: BinaryIO, *, limit: int) -> None:
        self._arrivals.receive(arrival_id, stream, limit=limit)

    def arrival(self, arrival_id: str) -> Luggage:
        return self._arrivals.get(arrival_id)

    def arrivals(self) -> tuple[str, ...]:
        return self._arrivals.ids()

    def remove_arrival(self, arrival_id: str) -> None:
        self._arrivals.remove(arrival_id)

    def take_up_volume(self, volume_id: str, file: Path) -> None:
        shutil.copy(file, self._directory / volume_id)

    def volumes(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._directory.iterdir()))

    def pools(self) -> tuple[ObservedPool, ...]:
        return ()


class FakeNetwork:
    """Remembers what it was asked for; fails with ``error``, and waits for ``gate``."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], list[str]]] = []
        self.removed_ports: list[str] = []
        self.error: Exception | None = None
        self.taken_port = ""
        self.gate = threading.Event()
        self.gate.set()

    def recover(self) -> None:
        """Nothing is there yet."""

    def ensure(
        self, networks: Iterable[DesiredNetwork], workloads: Iterable[DesiredWorkload]
    ) -> None:
        self.asked.append(([one.id for one in networks], [one.id for one in workloads]))
        assert self.gate.wait(15)
        if self.error is not None:
            raise self.error

    def connect(self, nic: DesiredNic, pid: int) -> None:
        """The fake driver connects nothing."""

    def disconnect(self, nic_id: str) -> None:
        self.remove_port(nic_id)

    def port_conflicts(self, workloads: Iterable[DesiredWorkload]) -> dict[str, str]:
        return {one.id: self.taken_port for one in workloads if self.taken_port}

    def remove_port(self, nic_id: str) -> None:
        self.removed_ports.append(nic_id)

    def ports(self) -> tuple[str, ...]:
        return ()

    def remove_all(self) -> None:
        """Nothing is there."""


class NoBlobs:
    def fetch(self, digest: str, offset: int) -> Iterator[bytes]:
        del offset
        raise ImageError(f"there is no blob {digest}")


class RecordingOutbox(Outbox):
    """Keeps all that was ever put."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[ObservedWorkload] = []

    def put(self, observed: ObservedWorkload) -> None:
        self.history.append(observed)
        super().put(observed)

    def latest(self, workload_id: str) -> ObservedWorkload | None:
        found = (one for one in reversed(self.history) if one.id == workload_id)
        return next(found, None)

    def states(self, workload_id: str) -> list[State]:
        """The states that were reported, without repetitions in a row."""
        found: list[State] = []
        for one in self.history:
            if one.id == workload_id and found[-1:] != [one.status.state]:
                found.append(one.status.state)
        return found


class Host:
    """A host whose agent can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.world = CheckedWorld()
        self.network = FakeNetwork()
        self.storage = FakeStorage(directory / "volumes")
        self.boot_id = "boot-1"
        self.kinds: tuple[Kind, ...] = tuple(Kind)
        self._agents: list[Reconciler] = []
        self._guards: list[Guard] = []
        self.start_agent()

    def start_agent(self) -> None:
        self.driver = StubbornDriver(self.world)
        self.outbox = RecordingOutbox()
        networks = NetworkKeeper(self.network)
        files = StateFiles(self.state)
        images = ImageKeeper(
            storage=self.storage,
            source=NoBlobs(),
            files=files,
            clock=SystemClock(),
            keep_for=timedelta(hours=24),
        )
        drivers = dict.fromkeys(self.kinds, self.driver)
        self.guard = Guard(self.directory / "fence")
        self._guards.append(self.guard)
        self.agent = Reconciler(
            runner=StepRunner(drivers, self.storage, networks, images),
            networks=networks,
            storage=self.storage,
            files=files,
            outbox=self.outbox,
            clock=SystemClock(),
            boot_id=self.boot_id,
            guard=self.guard,
            departures=self.departures(),
        )
        self._agents.append(self.agent)
        self.agent.start()

    def departures(self) -> Departures | None:
        """How workloads leave it while they run; None: they do not."""
        return None

    def stop_agent(self) -> None:
        self.agent.close()
        self._agents.remove(self.agent)

    def restart_agent(self) -> None:
        self.stop_agent()
        self.start_agent()

    def close(self) -> None:
        self.network.gate.set()
        for event in self.driver.stubborn.values():
            event.set()
        for agent in self._agents:
            agent.close()
        for guard in self._guards:
            end_watchdog(guard)

    def apply(self, *workloads: DesiredWorkload, full: bool = False, networks: Any = ()) -> None:
        self.agent.apply(workloads, networks, full=full)

    def until(self, workload: DesiredWorkload, state: State, **status: Any) -> ObservedWorkload:
        """Wait until the workload, as it is desired now, is reported in ``state``."""

        def there() -> bool:
            found = self.outbox.latest(workload.id)
            return (
                found is not None
                and found.observed_generation >= workload.generation
                and found.status.state is state
                and all(getattr(found.status, key) == value for key, value in status.items())
            )

        eventually(there)
        found = self.outbox.latest(workload.id)
        assert found is not None
        return found

    def until_gone(self, workload_id: str) -> None:
        def gone() -> bool:
            found = self.outbox.latest(workload_id)
            return found is not None and found.gone

        eventually(gone)

    def fail(self, verb: str, error: VirtmgrError | None = None, *, times: int = 1) -> None:
        self.world.script.fail(verb, error, times=times)
