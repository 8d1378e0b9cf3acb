"""The worker's half of making hosts, with playbooks that do what a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.api.conftest import SSH_KEY, StillClock, open_services
from virtmgr import __version__
from virtmgr.domain.errors import HostError
from virtmgr.domain.host import Cluster, Host, HostAccess, HostState
from virtmgr.domain.ids import new_id
from virtmgr.domain.installation import TaskFailed
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.ssh import HostKey
from virtmgr.ports.playbooks import MachineFound, PlayRequest, Report, Said, TaskBegan
from virtmgr.services import installation_worker
from virtmgr.services.container import Services
from virtmgr.services.host_installation import ENROLL, UPGRADE, purpose
from virtmgr.services.installation_worker import InstallationWorker
from virtmgr.store import migrate

Body = Callable[[PlayRequest, Report, Callable[[], bool]], TaskFailed | None]


@dataclass
class ScriptedPlaybooks:
    """Playbooks whose runs are ``body``; what was asked for is kept."""

    body: Body
    keys: tuple[HostKey, ...] = (SSH_KEY,)
    asked: list[PlayRequest] = field(default_factory=list)

    def scan(self, address: str, port: int) -> tuple[HostKey, ...]:
        del address, port
        return self.keys

    def prepare(self, say: Callable[[str], None]) -> None:
        del say

    def run(
        self, request: PlayRequest, report: Report, cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        self.asked.append(request)
        return self.body(request, report, cancelled)

    def clean(self) -> None:
        pass


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def services(tmp_path: Path, clock: StillClock) -> Iterator[Services]:
    empty = tmp_path / "empty.db"
    migrate.upgrade(f"sqlite:///{empty}")
    with open_services(empty, tmp_path, clock) as services:
        with services.units() as uow:
            uow.clusters.add(Cluster(id=new_id(), name="default", created_at=clock.now()))
            uow.commit()
        yield services


def _ask(services: Services, name: str = "node1", *, kept: bool = False, verb: str = ENROLL) -> str:
    """An installation, or another run, that was asked for; its operation's id."""
    now = services.clock.now()
    with services.units() as uow:
        cluster = uow.clusters.find("default")
        assert cluster is not None
        host = Host(
            id=new_id(),
            name=name,
            cluster_id=cluster.id,
            state=HostState.INSTALLING if verb == ENROLL else HostState.READY,
            created_at=now,
        )
        uow.hosts.add(host)
        sealed = services.vault.seal(b'{"password": "hunter2"}', purpose(host.id))
        uow.host_access.add(
            HostAccess(
                host_id=host.id,
                address=f"{name}.example",
                user="root",
                host_key=SSH_KEY.fingerprint,
                sealed=sealed,
                kept=kept,
            )
        )
        operation = Operation(
            id=new_id(),
            verb=verb,
            target_type="host",
            target_id=host.id,
            target_name=name,
            project_id=None,
            user_id=None,
            created_at=now,
            updated_at=now,
        )
        uow.operations.add(operation)
        uow.commit()
    return operation.id


def _sync(services: Services, name: str, machine_id: str = "m1") -> None:
    """What the first sync of the host's agent does."""
    with services.units() as uow:
        host = uow.hosts.find(name)
        assert host is not None
        host.state, host.facts = HostState.READY, {"machine_id": machine_id, "hostname": name}
        host.machine_id = machine_id
        uow.commit()


def _becomes_ready(services: Services) -> Body:
    def body(
        request: PlayRequest, report: Report, _cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        report(MachineFound("m1", request.host))
        report(TaskBegan("packages", "Install packages"))
        report(Said("packages: Install packages"))
        _sync(services, request.host)
        return None

    return body


def _fails(
    _request: PlayRequest, _report: Report, _cancelled: Callable[[], bool]
) -> TaskFailed | None:
    return TaskFailed("Install packages", "packages", "Failed to fetch http://mirror", "why")


def _operation(services: Services, id: str) -> Operation:
    with services.units(read_only=True) as uow:
        found = uow.operations.get(id)
    assert found is not None
    return found


def _state(services: Services, name: str) -> HostState:
    with services.units(read_only=True) as uow:
        host = uow.hosts.find(name)
    assert host is not None
    return host.state


def _log(services: Services, id: str) -> list[str]:
    with services.units(read_only=True) as uow:
        return [line.text for line in uow.operation_log.after(id, 0, limit=1000)]


def _sealed(services: Services, name: str) -> str | None:
    with services.units(read_only=True) as uow:
        host = uow.hosts.find(name)
        access = None if host is None else uow.host_access.get(host.id)
    assert access is not None
    return access.sealed


@dataclass
class _Running:
    stop: threading.Event
    thread: threading.Thread

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def work(services: Services) -> Iterator[Callable[[ScriptedPlaybooks], _Running]]:
    """Starts workers, which end with the test."""
    running: list[_Running] = []

    def start(playbooks: ScriptedPlaybooks) -> _Running:
        stop = threading.Event()
        worker = InstallationWorker(services, playbooks)
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        running.append(_Running(stop, thread))
        return running[-1]

    yield start
    for each in running:
        each.end()


Work = Callable[[ScriptedPlaybooks], _Running]


def _wait(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _finished(services: Services, id: str) -> Operation:
    _wait(lambda: _operation(services, id).finished_at is not None)
    return _operation(services, id)


def test_a_host_that_becomes_ready_ends_the_operation(services: Services, work: Work) -> None:
    id = _ask(services)
    playbooks = ScriptedPlaybooks(_becomes_ready(services))
    work(playbooks)
    operation = _finished(services, id)
    assert (operation.state, operation.progress) == (OperationState.SUCCEEDED, 1.0)
    assert _state(services, "node1") is HostState.READY
    asked = playbooks.asked[0]
    assert (asked.playbook, asked.host, asked.address) == ("enroll", "node1", "node1.example")
    assert (asked.login.password, asked.host_key) == ("hunter2", SSH_KEY)
    assert (asked.join_token or "").startswith("vmj_")
    assert "hunter2" not in repr(asked)
    assert (asked.join_token or "?") not in repr(asked)
    assert "packages: Install packages" in _log(services, id)


def test_a_failure_is_explained_and_credentials_are_forgotten(
    services: Services, work: Work
) -> None:
    id = _ask(services)
    work(ScriptedPlaybooks(_fails))
    operation = _finished(services, id)
    assert operation.state is OperationState.FAILED
    assert operation.error is not None
    assert operation.error["code"] == "packages_unavailable"
    assert (operation.error["task"], operation.error["stderr"]) == ("Install packages", "why")
    assert _state(services, "node1") is HostState.INSTALL_FAILED
    assert _sealed(services, "node1") is None
    with services.units(read_only=True) as uow:
        host = uow.hosts.find("node1")
    assert host is not None
    assert host.join_token_hash is None


def test_credentials_that_shall_be_kept_are(services: Services, work: Work) -> None:
    id = _ask(services, kept=True)
    work(ScriptedPlaybooks(_fails))
    _finished(services, id)
    assert _sealed(services, "node1") is not None


def test_a_server_with_another_key_is_not_logged_in_to(services: Services, work: Work) -> None:
    other = HostKey("ssh-rsa", "AAAAB3NzaC1yc2EAAAADAQABAAABAQC7")
    playbooks = ScriptedPlaybooks(_fails, keys=(other,))
    id = _ask(services)
    work(playbooks)
    operation = _finished(services, id)
    assert operation.error is not None
    assert operation.error["code"] == "host_key_changed"
    assert playbooks.asked == []


def test_a_machine_that_is_another_host_is_refused_before_it_is_changed(
    services: Services, work: Work
) -> None:
    _finished_by = _ask(services, "node1")
    with services.units() as uow:
        operation = uow.operations.lock(_finished_by)
        assert operation is not None
        operation.state = OperationState.SUCCEEDED
        uow.commit()
    _sync(services, "node1", "m1")
    changed = []

    def body(
        _request: PlayRequest, report: Report, _cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        report(MachineFound("m1", "node1"))
        changed.append(True)
        return None

    id = _ask(services, "node2")
    work(ScriptedPlaybooks(body))
    operation = _finished(services, id)
    assert operation.error is not None
    assert operation.error["code"] == "machine_enrolled"
    assert "'node1'" in operation.error["detail"]
    assert not changed


def test_an_agent_of_somebody_else_is_no_success(services: Services, work: Work) -> None:
    id = _ask(services)
    work(ScriptedPlaybooks(lambda *_: None))
    operation = _finished(services, id)
    assert operation.error is not None
    assert operation.error["code"] == "enrolled_elsewhere"
    assert _state(services, "node1") is HostState.INSTALL_FAILED


def test_a_defect_of_our_own_ends_it_too(services: Services, work: Work) -> None:
    def body(
        _request: PlayRequest, _report: Report, _cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        raise RuntimeError("a defect")

    id = _ask(services)
    work(ScriptedPlaybooks(body))
    operation = _finished(services, id)
    assert operation.error is not None
    assert operation.error["code"] == "internal_error"
    assert _state(services, "node1") is HostState.INSTALL_FAILED


def test_what_a_dead_worker_held_is_gone_on_with(
    services: Services, clock: StillClock, work: Work
) -> None:
    id = _ask(services)
    with services.units() as uow:  # a worker took it, and was killed
        taken = uow.operations.take([ENROLL], "dead", clock.now(), clock.now())
        assert taken is not None
        taken.parameters = {"attempts": 1}
        uow.commit()
    clock.advance(seconds=1)
    work(ScriptedPlaybooks(_becomes_ready(services)))
    assert _finished(services, id).state is OperationState.SUCCEEDED
    assert "going on after the worker was restarted" in _log(services, id)


def test_what_kills_every_worker_is_given_up(services: Services, work: Work) -> None:
    id = _ask(services)
    with services.units() as uow:
        operation = uow.operations.lock(id)
        assert operation is not None
        operation.parameters = {"attempts": 5}
        uow.commit()
    work(ScriptedPlaybooks(_becomes_ready(services)))
    operation = _finished(services, id)
    assert operation.error is not None
    assert operation.error["code"] == "given_up"
    assert _state(services, "node1") is HostState.INSTALL_FAILED


def _until_cancelled(began: threading.Event) -> Body:
    def body(
        _request: PlayRequest, _report: Report, cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        began.set()
        while not cancelled():
            time.sleep(0.02)
        raise HostError("it was cut off", code="interrupted")

    return body


def test_a_worker_that_is_stopped_leaves_it_to_the_next(services: Services, work: Work) -> None:
    began = threading.Event()
    id = _ask(services)
    running = work(ScriptedPlaybooks(_until_cancelled(began)))
    assert began.wait(20)
    running.end()
    assert _operation(services, id).state is OperationState.RUNNING
    assert _state(services, "node1") is HostState.INSTALLING
    assert _sealed(services, "node1") is not None
    work(ScriptedPlaybooks(_becomes_ready(services)))
    assert _finished(services, id).state is OperationState.SUCCEEDED


def test_removing_the_host_ends_the_run(services: Services, clock: StillClock, work: Work) -> None:
    began = threading.Event()
    id = _ask(services)
    running = work(ScriptedPlaybooks(_until_cancelled(began)))
    assert began.wait(20)
    with services.units() as uow:
        operation = uow.operations.lock(id)
        host = uow.hosts.find("node1")
        assert operation is not None
        assert host is not None
        operation.state = OperationState.CANCELLED
        uow.hosts.remove(host)
        uow.commit()
    clock.advance(seconds=11)  # the next look
    _wait(lambda: not any(t.name == f"install-{id}" for t in threading.enumerate()))
    running.end()
    assert _operation(services, id).state is OperationState.CANCELLED


def test_several_run_side_by_side(services: Services, work: Work) -> None:
    together = threading.Barrier(3)

    def body(
        request: PlayRequest, _report: Report, _cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        together.wait(20)
        _sync(services, request.host, request.host)
        return None

    ids = [_ask(services, name) for name in ("node1", "node2", "node3")]
    work(ScriptedPlaybooks(body))
    assert {_finished(services, id).state for id in ids} == {OperationState.SUCCEEDED}


@pytest.mark.parametrize("version", [__version__, "0.0.9"])
def test_an_upgrade_is_done_when_the_agent_is_of_our_version(
    services: Services, work: Work, version: str
) -> None:
    id = _ask(services, kept=True, verb=UPGRADE)

    def body(
        request: PlayRequest, report: Report, _cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        report(TaskBegan("agent", "Install the release"))
        with services.units() as uow:
            host = uow.hosts.find(request.host)
            assert host is not None
            host.facts = {"agent_version": version}
            uow.commit()
        return None

    playbooks = ScriptedPlaybooks(body)
    work(playbooks)
    operation = _finished(services, id)
    asked = playbooks.asked[0]
    assert (asked.playbook, asked.join_token) == ("upgrade", None)
    assert _state(services, "node1") is HostState.READY
    assert _sealed(services, "node1") is not None
    if version == __version__:
        assert operation.state is OperationState.SUCCEEDED
    else:
        assert operation.error is not None
        assert operation.error["code"] == "not_upgraded"


def test_a_host_that_joins_and_can_run_nothing_is_named(
    services: Services, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation_worker, "_PROBING", 0.0)
    id = _ask(services)

    def body(
        request: PlayRequest, _report: Report, _cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        with services.units() as uow:
            host = uow.hosts.find(request.host)
            assert host is not None
            host.state = HostState.PROBING
            uow.commit()
        return None

    work(ScriptedPlaybooks(body))
    operation = _finished(services, id)
    assert operation.error is not None
    assert operation.error["code"] == "not_ready"
    assert _state(services, "node1") is HostState.PROBING
