"""What every workload driver keeps, real or fake. One suite for all of them.

A driver's test module offers a kit and inherits the suite::

    class TestConformance(DriverConformance):
        @pytest.fixture
        def driver_kit(self) -> Iterator[DriverKit]: ...
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from virtmgr.domain.errors import DriverError, VirtmgrError
from virtmgr.domain.sync import DesiredNic, DesiredVolume, DesiredWorkload
from virtmgr.domain.workload import MIB
from virtmgr.drivers import sparse
from virtmgr.ports.driver import (
    PROTOCOLS,
    CanClone,
    CanExec,
    CanMove,
    CanPublish,
    ExecRequest,
    Feature,
    HasConsole,
    HasDisplay,
    HasFiles,
    HasLogs,
    Inspection,
    Luggage,
    Provision,
    RuntimeState,
    WorkloadDriver,
)


class DriverKit(Protocol):
    """What the suite needs of a driver's surroundings."""

    @property
    def driver(self) -> WorkloadDriver:
        """The driver, after ``recover``; another one after ``restart_agent``."""
        ...

    def desired(self) -> DesiredWorkload:
        """A new workload that runs until it is stopped and says something on its console."""
        ...

    def provision_for(self, workload: DesiredWorkload) -> Provision: ...

    def restart_agent(self) -> None:
        """Close the driver and make another over the same host, recovered."""
        ...

    def stop_agent(self) -> None:
        """Close the driver; ``start_agent`` makes another."""
        ...

    def start_agent(self) -> None: ...

    def kill_guest(self, workload_id: str) -> None:
        """End the guest from outside, as a crash would."""
        ...

    def saw_change(self, workload_id: str) -> bool:
        """Whether the driver says, within a generous time, that the workload has changed."""
        ...

    def wait_ready(self, workload_id: str) -> None:
        """Wait until commands can be run in a workload that was just started."""
        ...

    @property
    def undecided(self) -> frozenset[str]:
        """Fields that may wait for a restart although they need not: the guest has a say in it."""
        ...

    @property
    def keeps_files(self) -> bool:
        """Whether its workloads have their files on a disk, and so after a stop as well."""
        ...

    def volume(self) -> tuple[DesiredVolume, Path]:
        """An empty volume and its file; in a container it is mounted."""
        ...

    def nic(self) -> DesiredNic:
        """A NIC on a network of this host."""
        ...

    def echo(self, text: str) -> tuple[str, ...]:
        """A command that writes ``text`` and a newline."""
        ...

    def fail(self, code: int) -> tuple[str, ...]:
        """A command that exits with ``code``."""
        ...


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class DriverConformance:
    """The suite; subclasses define the ``driver_kit`` fixture."""

    def _prepared(self, kit: DriverKit) -> DesiredWorkload:
        workload = kit.desired()
        kit.driver.prepare(workload, kit.provision_for(workload))
        return workload

    def _started(self, kit: DriverKit) -> DesiredWorkload:
        workload = self._prepared(kit)
        kit.driver.start(workload, kit.provision_for(workload))
        return workload

    def _is(self, kit: DriverKit, workload: DesiredWorkload, state: RuntimeState) -> Inspection:
        seen = kit.driver.inspect(workload.id)
        assert seen.state is state
        return seen

    def _need(self, kit: DriverKit, feature: Feature) -> None:
        if feature not in kit.driver.capabilities().features:
            pytest.skip(f"{kit.driver.name}: {kit.driver.capabilities().why_not[feature]}")

    def test_says_what_it_can(self, driver_kit: DriverKit) -> None:
        driver = driver_kit.driver
        assert isinstance(driver, WorkloadDriver)
        offered, facts = driver.capabilities(), driver.facts()
        assert driver_kit.desired().kind in offered.kinds
        assert (facts.name, facts.healthy) == (driver.name, True)
        assert facts.version
        assert set(facts.kinds) == set(offered.kinds)
        assert set(facts.features) == set(offered.features)
        assert set(offered.why_not) == set(Feature) - offered.features
        assert set(offered.within) <= offered.features
        for feature, protocol in PROTOCOLS.items():
            if driver.name == "fake":  # declares what it is told to
                continue
            assert isinstance(driver, protocol) is (feature in offered.features)

    def test_what_is_not_there(self, driver_kit: DriverKit) -> None:
        driver, workload = driver_kit.driver, driver_kit.desired()
        self._is(driver_kit, workload, RuntimeState.ABSENT)
        assert workload.id not in driver.list()
        assert driver.stats([workload.id]) == {}
        driver.destroy(workload.id)
        driver.stop(workload.id, timeout=0, force=True)
        self._is(driver_kit, workload, RuntimeState.ABSENT)

    def test_prepare(self, driver_kit: DriverKit) -> None:
        workload = self._prepared(driver_kit)
        self._is(driver_kit, workload, RuntimeState.PREPARED)
        driver_kit.driver.prepare(workload, driver_kit.provision_for(workload))
        seen = self._is(driver_kit, workload, RuntimeState.PREPARED)
        assert (seen.pid, seen.started_at) == (None, None)
        assert workload.id in driver_kit.driver.list()
        assert driver_kit.driver.stats([workload.id]) == {}

    def test_start_is_idempotent(self, driver_kit: DriverKit) -> None:
        workload = self._started(driver_kit)
        first = self._is(driver_kit, workload, RuntimeState.RUNNING)
        assert first.pid
        assert first.started_at is not None
        assert first.started_at.tzinfo is not None
        driver_kit.driver.start(workload, driver_kit.provision_for(workload))
        driver_kit.driver.prepare(workload, driver_kit.provision_for(workload))
        assert self._is(driver_kit, workload, RuntimeState.RUNNING).pid == first.pid
        usage = driver_kit.driver.stats([workload.id])[workload.id]
        assert usage.memory > 0

    def test_stop_by_force_and_start_again(self, driver_kit: DriverKit) -> None:
        workload = self._started(driver_kit)
        first = driver_kit.driver.inspect(workload.id)
        for _ in range(2):
            driver_kit.driver.stop(workload.id, timeout=0, force=True)
            seen = self._is(driver_kit, workload, RuntimeState.EXITED)
            assert seen.pid is None
            assert not seen.oom_killed
        assert driver_kit.driver.stats([workload.id]) == {}
        driver_kit.driver.start(workload, driver_kit.provision_for(workload))
        again = self._is(driver_kit, workload, RuntimeState.RUNNING)
        assert again.pid != first.pid
        assert again.exit_code is None

    def test_stop_waits_no_longer_than_asked(self, driver_kit: DriverKit) -> None:
        workload = self._started(driver_kit)
        driver_kit.driver.stop(workload.id, timeout=0.5, force=False)
        self._is(driver_kit, workload, RuntimeState.EXITED)

    def test_pause_and_resume(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.PAUSE)
        workload = self._started(driver_kit)
        pid = driver_kit.driver.inspect(workload.id).pid
        for _ in range(2):
            driver_kit.driver.pause(workload.id)
            self._is(driver_kit, workload, RuntimeState.PAUSED)
        for _ in range(2):
            driver_kit.driver.resume(workload.id)
            assert self._is(driver_kit, workload, RuntimeState.RUNNING).pid == pid
        driver_kit.driver.pause(workload.id)
        driver_kit.driver.stop(workload.id, timeout=0, force=True)
        self._is(driver_kit, workload, RuntimeState.EXITED)

    def test_what_does_not_run_cannot_be_paused(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.PAUSE)
        workload = self._prepared(driver_kit)
        for verb in (driver_kit.driver.pause, driver_kit.driver.resume):
            with pytest.raises(DriverError):
                verb(workload.id)
        self._is(driver_kit, workload, RuntimeState.PREPARED)

    def test_update(self, driver_kit: DriverKit) -> None:
        workload = self._started(driver_kit)
        provision = driver_kit.provision_for(workload)
        pid = driver_kit.driver.inspect(workload.id).pid
        assert driver_kit.driver.update(workload, provision).needs_restart == ()
        resources = workload.spec.resources
        more = resources.model_copy(update={"memory": resources.memory + 32 * MIB})
        spec = workload.spec.model_copy(update={"resources": more})
        larger = workload.model_copy(update={"spec": spec, "generation": 2})
        results = [driver_kit.driver.update(larger, provision) for _ in range(2)]
        assert results[0] == results[1]
        if Feature.RESIZE_MEMORY_LIVE in driver_kit.driver.capabilities().features:
            assert set(results[0].needs_restart) <= {"resources.memory"}
        assert self._is(driver_kit, workload, RuntimeState.RUNNING).pid == pid

    def _resized(self, kit: DriverKit, workload: DesiredWorkload, **resources: float) -> set[str]:
        """What of new resources of a running workload waits for a restart."""
        spec = workload.spec.resources.model_copy(update=resources)
        changed = workload.spec.model_copy(update={"resources": spec})
        larger = workload.model_copy(update={"spec": changed, "generation": 2})
        return set(kit.driver.update(larger, kit.provision_for(workload)).needs_restart)

    def test_vcpus_come_and_go_as_declared(self, driver_kit: DriverKit) -> None:
        if driver_kit.driver.name == "fake":
            pytest.skip("the fake driver has no CPUs")
        features = driver_kit.driver.capabilities().features
        workload = self._started(driver_kit)
        for vcpus, feature in (
            (2, Feature.RESIZE_VCPUS_LIVE),
            (1, Feature.SHRINK_VCPUS_LIVE),
        ):
            waiting = self._resized(driver_kit, workload, vcpus=vcpus)
            assert waiting == (set() if feature in features else {"resources.vcpus"})

    def test_a_volume_comes_and_goes_as_declared(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.ATTACH_VOLUME_LIVE)
        workload = self._started(driver_kit)
        volume, path = driver_kit.volume()
        provision = driver_kit.provision_for(workload)
        with_volume = replace(provision, volumes={volume.id: path})
        for number, volumes in enumerate([(volume,), (), (volume,)], start=2):
            changed = workload.model_copy(update={"volumes": volumes, "generation": number})
            waiting = driver_kit.driver.update(changed, with_volume).needs_restart
            assert set(waiting) <= driver_kit.undecided
        driver_kit.driver.destroy(workload.id)
        assert path.exists(), "the data stays"

    def test_a_nic_comes_and_goes_as_declared(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.ATTACH_NIC_LIVE)
        workload = self._started(driver_kit)
        driver_kit.wait_ready(workload.id)
        provision = driver_kit.provision_for(workload)
        nic = driver_kit.nic()
        for number, nics in enumerate([(nic,), (nic,), (), (nic,)], start=2):
            changed = workload.model_copy(update={"nics": nics, "generation": number})
            waiting = driver_kit.driver.update(changed, provision).needs_restart
            assert set(waiting) <= driver_kit.undecided
            driver_kit.restart_agent()  # which knows of it, too
        assert driver_kit.driver.inspect(workload.id).state is RuntimeState.RUNNING
        driver_kit.driver.destroy(workload.id)

    def test_console_and_display(self, driver_kit: DriverKit) -> None:
        workload, driver = self._started(driver_kit), driver_kit.driver
        if Feature.CONSOLE in driver.capabilities().features:
            assert isinstance(driver, HasConsole)
            with driver.console(workload.id) as console:
                console.sendall(b"\n")
        if Feature.DISPLAY in driver.capabilities().features and isinstance(driver, HasDisplay):
            with driver.display(workload.id) as display:
                assert display.recv(4) == b"RFB "

    def test_a_new_name_waits_for_the_next_start(self, driver_kit: DriverKit) -> None:
        workload = self._started(driver_kit)
        provision = driver_kit.provision_for(workload)
        pid = driver_kit.driver.inspect(workload.id).pid
        spec = workload.spec.model_copy(update={"name": "renamed"})
        renamed = workload.model_copy(update={"name": "renamed", "spec": spec, "generation": 2})
        for _ in range(2):
            assert driver_kit.driver.update(renamed, provision).needs_restart == ("name",)
        assert self._is(driver_kit, workload, RuntimeState.RUNNING).pid == pid
        driver_kit.driver.stop(workload.id, timeout=0, force=True)
        driver_kit.driver.start(renamed, provision)
        assert driver_kit.driver.update(renamed, provision).needs_restart == ()
        assert driver_kit.driver.list().count(workload.id) == 1

    def test_death_is_noticed(self, driver_kit: DriverKit) -> None:
        workload = self._started(driver_kit)
        driver_kit.kill_guest(workload.id)
        assert driver_kit.saw_change(workload.id)
        seen = self._is(driver_kit, workload, RuntimeState.EXITED)
        assert seen.exit_code != 0

    def test_the_agent_restarts(self, driver_kit: DriverKit) -> None:
        running, prepared = self._started(driver_kit), self._prepared(driver_kit)
        dies = self._started(driver_kit)
        pid = driver_kit.driver.inspect(running.id).pid
        driver_kit.stop_agent()
        driver_kit.kill_guest(dies.id)
        driver_kit.start_agent()
        assert {running.id, prepared.id, dies.id} <= set(driver_kit.driver.list())
        assert self._is(driver_kit, running, RuntimeState.RUNNING).pid == pid
        self._is(driver_kit, prepared, RuntimeState.PREPARED)
        assert eventually(lambda: driver_kit.driver.inspect(dies.id).state is RuntimeState.EXITED)
        driver_kit.kill_guest(running.id)
        assert driver_kit.saw_change(running.id)
        self._is(driver_kit, running, RuntimeState.EXITED)

    def test_destroy(self, driver_kit: DriverKit) -> None:
        running, prepared = self._started(driver_kit), self._prepared(driver_kit)
        for workload in (running, prepared, running):
            driver_kit.driver.destroy(workload.id)
            self._is(driver_kit, workload, RuntimeState.ABSENT)
            assert workload.id not in driver_kit.driver.list()
        driver_kit.restart_agent()
        assert not {running.id, prepared.id} & set(driver_kit.driver.list())

    def test_clone(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.CLONE)
        source, clone = self._started(driver_kit), driver_kit.desired()
        driver, provision = driver_kit.driver, driver_kit.provision_for(clone)
        assert isinstance(driver, CanClone)
        with pytest.raises(DriverError):
            driver.clone(source.id, clone, provision)
        if isinstance(driver, HasFiles) and driver_kit.keeps_files:
            driver.push(source.id, "/tmp", _tar("note", b"hello"))
        driver.stop(source.id, timeout=0, force=True)
        for _ in range(2):
            driver.clone(source.id, clone, provision)
            self._is(driver_kit, clone, RuntimeState.PREPARED)
        driver_kit.restart_agent()
        driver = driver_kit.driver
        self._is(driver_kit, source, RuntimeState.EXITED)
        self._is(driver_kit, clone, RuntimeState.PREPARED)
        driver.start(clone, provision)
        driver.start(source, driver_kit.provision_for(source))
        driver.destroy(source.id)
        assert self._is(driver_kit, clone, RuntimeState.RUNNING).pid
        if isinstance(driver, HasFiles) and driver_kit.keeps_files:
            assert _content(driver, clone.id, "/tmp/note") == b"hello"

    def test_move(self, driver_kit: DriverKit, tmp_path: Path) -> None:
        """It leaves, and comes back as if it came from another host."""
        self._need(driver_kit, Feature.MOVE)
        workload, driver = self._started(driver_kit), driver_kit.driver
        provision = driver_kit.provision_for(workload)
        assert isinstance(driver, CanMove)
        with pytest.raises(DriverError), driver.leave(workload.id):
            pass
        if isinstance(driver, HasFiles) and driver_kit.keeps_files:
            driver.push(workload.id, "/tmp", _tar("note", b"hello"))
        driver.stop(workload.id, timeout=0, force=True)
        with driver.leave(workload.id) as luggage:
            files = {name: tmp_path / name for name in luggage.files}
            for name, file in luggage.files.items():
                sparse.copy(file, files[name])
        driver.destroy(workload.id)
        for _ in range(2):
            driver.arrive(workload, provision, Luggage(files, luggage.facts))
            self._is(driver_kit, workload, RuntimeState.PREPARED)
        driver_kit.restart_agent()
        driver = driver_kit.driver
        driver.start(workload, provision)
        self._is(driver_kit, workload, RuntimeState.RUNNING)
        if isinstance(driver, HasFiles) and driver_kit.keeps_files:
            assert _content(driver, workload.id, "/tmp/note") == b"hello"

    def test_publish(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.PUBLISH)
        workload, driver = self._started(driver_kit), driver_kit.driver
        assert isinstance(driver, CanPublish)
        with pytest.raises(DriverError) as failure:
            next(driver.export(workload.id))
        assert failure.value.code == "in_use"
        driver.stop(workload.id, timeout=0, force=True)
        if not driver_kit.keeps_files:
            pytest.skip("it has no disk")
        given_up = driver.export(workload.id)
        next(given_up)
        given_up.close()
        first, second = (b"".join(driver.export(workload.id)) for _ in range(2))
        assert first
        assert len(first) == len(second)
        driver.start(workload, driver_kit.provision_for(workload))
        driver.destroy(workload.id)
        with pytest.raises(DriverError):
            next(driver.export(workload.id))

    def test_exec(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.EXEC)
        workload = self._prepared(driver_kit)
        driver = driver_kit.driver
        assert isinstance(driver, CanExec)
        with pytest.raises(VirtmgrError):
            driver.exec(workload.id, ExecRequest(driver_kit.echo("x")))
        driver.start(workload, driver_kit.provision_for(workload))
        driver_kit.wait_ready(workload.id)
        for command, wanted, text in (
            (driver_kit.echo("hello"), 0, b"hello\n"),
            (driver_kit.fail(42), 42, b""),
        ):
            session = driver.exec(workload.id, ExecRequest(command))
            with session.stdout as stdout:
                assert stdout.read() == text
            assert session.wait() == wanted
            session.kill()
            assert session.stderr is not None
            session.stderr.close()

    def test_logs(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.LOGS)
        workload = self._started(driver_kit)
        driver = driver_kit.driver
        assert isinstance(driver, HasLogs)
        assert eventually(
            lambda: b"".join(driver.logs(workload.id, follow=False, tail=None)) != b""
        )
        following = driver.logs(workload.id, follow=True, tail=None)
        assert next(following)
        driver.stop(workload.id, timeout=0, force=True)
        assert isinstance(b"".join(following), bytes)

    def test_files(self, driver_kit: DriverKit) -> None:
        self._need(driver_kit, Feature.FILES)
        workload = self._started(driver_kit)
        driver = driver_kit.driver
        assert isinstance(driver, HasFiles)
        driver_kit.wait_ready(workload.id)
        driver.push(workload.id, "/tmp", _tar("note", b"hello"))
        assert _content(driver, workload.id, "/tmp/note") == b"hello"
        with pytest.raises(VirtmgrError):
            list(driver.pull(workload.id, "/no/such/file"))


def _tar(name: str, content: bytes) -> io.BytesIO:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return io.BytesIO(archive.getvalue())


def _content(driver: HasFiles, workload_id: str, path: str) -> bytes:
    pulled = io.BytesIO(b"".join(driver.pull(workload_id, path)))
    with tarfile.open(fileobj=pulled) as tar:
        assert tar.getnames() == [path.rpartition("/")[2]]
        content = tar.extractfile(tar.getnames()[0])
        assert content is not None
        return content.read()
