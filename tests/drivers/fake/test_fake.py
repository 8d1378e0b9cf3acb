"""The fake driver keeps the contract of the real ones, and its script."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drivers.conformance import DriverConformance
from virtmgr.domain.errors import DriverError
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import mac_address
from virtmgr.domain.sync import DesiredNic, DesiredVolume, DesiredWorkload
from virtmgr.domain.workload import Init, Kind, PowerState, WorkloadSpec
from virtmgr.drivers.fake.driver import FakeDriver
from virtmgr.drivers.fake.world import FakeWorld
from virtmgr.ports.driver import Provision, RuntimeState


def desired() -> DesiredWorkload:
    spec = WorkloadSpec(name="w", kind=Kind.CONTAINER, init=Init.APP, image="any")
    return DesiredWorkload(
        id=new_id(),
        project="default",
        name="w",
        kind=Kind.CONTAINER,
        init=Init.APP,
        generation=1,
        revision=1,
        spec=spec,
        state=PowerState.RUNNING,
    )


class FakeKit:
    """``file``: the world is read anew at each start of the agent, as in another process."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.world = FakeWorld(file)
        self.changes: list[str] = []
        self.start_agent()

    def start_agent(self) -> None:
        if self._file is not None:
            self.world = FakeWorld(self._file)
        self.driver = FakeDriver(self.world)
        self.driver.recover(self.changes.append)

    def stop_agent(self) -> None:
        self.driver.close()

    def restart_agent(self) -> None:
        self.stop_agent()
        self.start_agent()

    def desired(self) -> DesiredWorkload:
        return desired()

    def provision_for(self, workload: DesiredWorkload) -> Provision:
        del workload
        return Provision()

    def kill_guest(self, workload_id: str) -> None:
        self.world.end(workload_id, signal=9)

    def saw_change(self, workload_id: str) -> bool:
        return workload_id in self.changes

    def wait_ready(self, workload_id: str) -> None:
        """At once."""

    undecided = frozenset[str]()
    keeps_files = True

    def volume(self) -> tuple[DesiredVolume, Path]:
        made = DesiredVolume(id=new_id(), name="data", size=1)
        return made, Path("/dev/null")

    def nic(self) -> DesiredNic:
        made = new_id()
        return DesiredNic(id=made, index=0, network_id=new_id(), mac=mac_address(made))

    def echo(self, text: str) -> tuple[str, ...]:
        return ("echo", text)

    def fail(self, code: int) -> tuple[str, ...]:
        return ("exit", str(code))


class TestInMemory(DriverConformance):
    @pytest.fixture
    def driver_kit(self) -> FakeKit:
        return FakeKit(None)


class TestPersistent(DriverConformance):
    @pytest.fixture
    def driver_kit(self, tmp_path: Path) -> FakeKit:
        return FakeKit(tmp_path / "world.json")


def test_the_script_is_played() -> None:
    kit, workload = FakeKit(None), desired()
    kit.world.script.fail("start", times=2)
    kit.world.script.fail(f"prepare:{workload.id}", DriverError("disk full", code="full"))
    kit.world.script.delay("inspect", 0.01)
    with pytest.raises(DriverError, match="disk full"):
        kit.driver.prepare(workload, Provision())
    for _ in range(2):
        with pytest.raises(DriverError, match="script"):
            kit.driver.start(workload, Provision())
    kit.driver.start(workload, Provision())
    assert kit.driver.inspect(workload.id).state is RuntimeState.RUNNING
    assert ("start", workload.id) in kit.world.calls
    kit.world.end(workload.id, signal=9, oom=True)
    seen = kit.driver.inspect(workload.id)
    assert (seen.exit_code, seen.signal, seen.oom_killed) == (137, 9, True)
    kit.world.reboot()
    assert kit.driver.inspect(workload.id).state is RuntimeState.PREPARED
