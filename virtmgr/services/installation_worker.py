"""Makes machines hosts: takes operations of ``host_installation`` and runs their playbooks.

An operation is held by a lease that a heartbeat renews. A worker that dies lets it run out, and the
next one runs the playbook again: whatever is right already stays as it is. After ``_ATTEMPTS`` the
operation is given up. Credentials go from the inventory when the operation has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from virtmgr import __version__
from virtmgr.domain.errors import Conflict, HostError, VirtmgrError
from virtmgr.domain.host import Host, HostAccess, HostState
from virtmgr.domain.host_states import SCHEDULING
from virtmgr.domain.installation import explain, share_done
from virtmgr.domain.machine import MAY_REPLACE, Machine, check_machine
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.readiness import missing
from virtmgr.domain.ssh import HostKey, trusted_key
from virtmgr.ports.playbooks import (
    Login,
    MachineFound,
    Playbooks,
    PlayRequest,
    Said,
    TaskBegan,
)
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.auth import new_secret
from virtmgr.services.container import Services
from virtmgr.services.holding import DATABASE_AWAY, heartbeat, new_holder
from virtmgr.services.host_installation import UPGRADE, VERBS, login
from virtmgr.services.hosts import JOIN_TOKEN_LIFETIME
from virtmgr.services.operation_end import end
from virtmgr.services.records import add_event, host_target

log = structlog.get_logger(__name__)

AT_A_TIME: Final = 8
_LEASE: Final = timedelta(seconds=30)
_RENEWAL: Final = timedelta(seconds=10)  # of the lease, where there is no news to write
_IDLE: Final = 1.0
_PROBING: Final = 30.0  # seconds that daemons on a new host may take to answer its agent
_ATTEMPTS: Final = 5  # of workers that died meanwhile


@dataclass
class _News:
    """What a run has told and the inventory does not know yet.

    :param written: when something of it was last written.
    """

    written: datetime
    lines: list[str] = field(default_factory=list)
    message: str = ""
    progress: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        with self.lock:
            self.lines.append(text)

    def began(self, role: str, task: str) -> None:
        with self.lock:
            self.message = f"{role}: {task}" if role else task
            self.progress = max(self.progress, share_done(role))

    def take(self) -> list[str]:
        with self.lock:
            taken, self.lines = self.lines, []
            return taken


@dataclass(frozen=True)
class _Job:
    """One operation with what is needed to carry it out."""

    operation: Operation
    host: Host
    access: HostAccess
    login: Login
    join_token: str | None


class InstallationWorker:
    """Carries out at most ``AT_A_TIME`` operations side by side."""

    def __init__(self, services: Services, playbooks: Playbooks) -> None:
        self._services = services
        self._playbooks = playbooks
        self._owner = new_holder()
        self._free = threading.BoundedSemaphore(AT_A_TIME)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; what is under way then is cut off, and gone on with by the
        next worker."""
        self._playbooks.clean()
        running: list[threading.Thread] = []
        while not stop.is_set():
            running = [thread for thread in running if thread.is_alive()]
            if not self._free.acquire(timeout=_IDLE):
                continue
            operation = self._take()
            if operation is None:
                self._free.release()
                stop.wait(_IDLE)
                continue
            thread = threading.Thread(
                target=self._carry_out, args=(operation, stop), name=f"install-{operation.id}"
            )
            thread.start()
            running.append(thread)
        for thread in running:
            thread.join()

    def _take(self) -> Operation | None:
        now = self._services.clock.now()
        try:
            with self._services.units() as uow:
                operation = uow.operations.take(VERBS, self._owner, now + _LEASE, now)
                uow.commit()
            return operation
        except VirtmgrError as error:  # such as a database that is away
            log.warning("installation_worker_failed", error=error.message, code=error.code)
            return None

    def _carry_out(self, operation: Operation, stop: threading.Event) -> None:
        news, lost = _News(self._services.clock.now()), threading.Event()
        try:
            beat = partial(self._beat, operation.id, news, lost)
            with heartbeat(beat, name="installation"):
                try:
                    failed = self._work(operation, news, lambda: stop.is_set() or lost.is_set())
                except VirtmgrError as error:
                    if error.code in DATABASE_AWAY:
                        raise
                    failed = error
                except Exception as error:
                    log.exception("installation_crashed", operation=operation.id)
                    failed = _defect(operation, error)
            if failed is not None and stop.is_set():
                self._leave(operation.id, news)
            else:
                self._end(operation.id, operation.target_id, news, failed)
        except VirtmgrError as error:  # the lease runs out, and another worker goes on
            log.warning("installation_not_ended", operation=operation.id, error=error.message)
        finally:
            self._free.release()

    def _work(
        self, operation: Operation, news: _News, cancelled: Callable[[], bool]
    ) -> VirtmgrError | None:
        """Run the operation's playbook; why it failed.

        :raises VirtmgrError: it cannot be run, or was cancelled.
        """
        job = self._begin(operation, news)
        self._playbooks.prepare(lambda text: _tell(news, text))
        access = job.access
        _tell(news, f"looking at the ssh server at {access.address}, port {access.port}")
        shown = self._playbooks.scan(access.address, access.port)
        request = self._request(job, trusted_key(shown, access.host_key, access.address))
        failed = self._playbooks.run(
            request, lambda told: self._hear(job.host.id, told, news), cancelled
        )
        if failed is None:
            self._check_ready(job)
            if operation.verb == UPGRADE:
                self._check_release(job)
            return None
        return explain(failed, job.host.name)

    def _begin(self, operation: Operation, news: _News) -> _Job:
        """Note the attempt, and make the join token that it needs."""
        now = self._services.clock.now()
        with self._services.units() as uow:
            host = uow.hosts.lock(operation.target_id)
            held = self._held(uow, operation.id)
            access = uow.host_access.get(operation.target_id)
            if held is None or host is None or access is None:
                raise Conflict("it was cancelled", code="cancelled")
            attempts = int(held.parameters.get("attempts", 0)) + 1
            if attempts > _ATTEMPTS:
                raise HostError(
                    f"host {host.name}: given up after {_ATTEMPTS} attempts that ended with their "
                    "worker",
                    code="given_up",
                    hint="see in the control plane's log why its worker ended, then "
                    f"'virtmgr host retry {host.name}'",
                )
            if attempts > 1:
                news.say("going on after the worker was restarted")
            held.parameters = {**held.parameters, "attempts": attempts}
            given = login(self._services, access)
            token = None
            if operation.verb != UPGRADE:
                token, host.join_token_hash = new_secret("vmj_")
                host.join_token_expires_at = now + JOIN_TOKEN_LIFETIME
            uow.commit()
        return _Job(operation, host, access, given, token)

    def _request(self, job: _Job, key: HostKey) -> PlayRequest:
        return PlayRequest(
            id=job.operation.id,
            playbook=job.operation.verb,
            host=job.host.name,
            address=job.access.address,
            port=job.access.port,
            host_key=key,
            login=job.login,
            join_token=job.join_token,
            variables={"virtmgr_vms": job.access.vms},
        )

    def _hear(self, host_id: str, told: TaskBegan | Said | MachineFound, news: _News) -> None:
        if isinstance(told, TaskBegan):
            news.began(told.role, told.task)
        elif isinstance(told, Said):
            news.say(told.text)
        else:
            self._check_machine(host_id, Machine(told.id, told.hostname))

    def _check_machine(self, host_id: str, found: Machine) -> None:
        """Refuse a machine that is another host, before anything is changed on it.

        :raises Forbidden: it is; the message names both.
        """
        with self._services.units(read_only=True) as uow:
            host = uow.hosts.get(host_id)
            if host is not None:
                replaces = bool(host.facts.get(MAY_REPLACE))
                check_machine(host, found, uow.hosts.on_machine(found.id), may_replace=replaces)

    def _check_ready(self, job: _Job) -> None:
        """The playbook saw the agent speak with a control plane: was it this one, as this host?

        :raises HostError: it was not; or it is, and stays without what workloads need.
        """
        deadline = time.monotonic() + _PROBING
        while True:
            with self._services.units(read_only=True) as uow:
                host = uow.hosts.get(job.host.id)
            probing = host is not None and host.state is HostState.PROBING
            if not probing or time.monotonic() > deadline:
                break
            time.sleep(_IDLE)
        if host is not None and probing:
            lacking = missing(host.facts)
            raise HostError(
                f"host {job.host.name} has joined, and cannot be scheduled on: "
                + "; ".join(one.message for one in lacking),
                code="not_ready",
                hint=(lacking[0].hint if lacking else None)
                or f"it becomes ready by itself; see 'virtmgr host show {job.host.name}'",
            )
        if host is None or host.state not in SCHEDULING:
            raise HostError(
                f"host {job.host.name}: an agent runs on the machine, but not as this host: it was "
                "enrolled elsewhere before",
                code="enrolled_elsewhere",
                hint="if it may be taken from there: run 'virtmgr host-clean' on the machine with "
                "its agent stopped, then 'virtmgr host retry " + job.host.name + "'",
            )

    def _check_release(self, job: _Job) -> None:
        """:raises HostError: its agent is not of this control plane's version."""
        with self._services.units(read_only=True) as uow:
            host = uow.hosts.get(job.host.id)
        runs = host.facts.get("agent_version") if host is not None else None
        if runs != __version__:
            raise HostError(
                f"host {job.host.name}: its agent is of version {runs or 'unknown'} after the "
                f"upgrade, not {__version__}",
                code="not_upgraded",
                hint="the agent's log on the host says which release it runs; then upgrade again",
            )

    def _held(self, uow: UnitOfWork, operation_id: str) -> Operation | None:
        """The operation, if it is still this worker's."""
        operation = uow.operations.lock(operation_id)
        if operation is None or operation.owner != self._owner:
            return None
        return operation if operation.state is OperationState.RUNNING else None

    def _end(
        self, operation_id: str, host_id: str, news: _News, failed: VirtmgrError | None
    ) -> None:
        """Finish operation and host; forget credentials and join token."""
        now = self._services.clock.now()
        with self._services.units() as uow:
            host = uow.hosts.lock(host_id)
            operation = self._held(uow, operation_id)
            if operation is None:
                return  # cancelled, or taken by another worker
            access = uow.host_access.get(operation.target_id)
            news.say("failed: " + failed.message if failed else "done")
            uow.operation_log.append(operation_id, now, news.take())
            if failed is None:
                end(operation, OperationState.SUCCEEDED, now)
            else:
                problem = {
                    "code": failed.code,
                    "detail": failed.message,
                    "hint": failed.hint,
                    **failed.detail,
                }
                end(operation, OperationState.FAILED, now, failed.message, problem=problem)
            if access is not None and not access.kept:
                access.sealed = None
            if host is not None:
                host.join_token_hash = host.join_token_expires_at = None
                if failed is not None and host.state is HostState.INSTALLING:
                    host.state = HostState.INSTALL_FAILED
                self._tell_end(uow, operation, host, failed)
            uow.after_commit(self._services.committed.notify)
            uow.commit()

    def _tell_end(
        self, uow: UnitOfWork, operation: Operation, host: Host, failed: VirtmgrError | None
    ) -> None:
        add_event(
            uow,
            f"host.{operation.verb}_{'failed' if failed else 'finished'}",
            host_target(host),
            now=self._services.clock.now(),
            user_id=operation.user_id,
            operation_id=operation.id,
            message=failed.message if failed else f"{operation.verb} of host {host.name} is done",
        )

    def _leave(self, operation_id: str, news: _News) -> None:
        """Let the next worker take the operation at once."""
        now = self._services.clock.now()
        with self._services.units() as uow:
            operation = self._held(uow, operation_id)
            if operation is not None:
                news.say("the worker was stopped")
                uow.operation_log.append(operation_id, now, news.take())
                operation.lease_expires_at = None
                uow.commit()

    def _beat(self, operation_id: str, news: _News, lost: threading.Event) -> None:
        """Renew the lease and write what is new; ``lost``: it is not ours any more."""
        now = self._services.clock.now()
        if not news.lines and now < news.written + _RENEWAL:
            return
        with self._services.units() as uow:
            operation = self._held(uow, operation_id)
            if operation is None:
                lost.set()
                return
            operation.lease_expires_at, operation.updated_at = now + _LEASE, now
            operation.progress = max(operation.progress, min(news.progress, 0.99))
            operation.message = news.message
            uow.operation_log.append(operation_id, now, news.take())
            uow.after_commit(self._services.committed.notify)
            uow.commit()
        news.written = now


def _tell(news: _News, text: str) -> None:
    news.say(text)
    news.began("", text)


def _defect(operation: Operation, error: Exception) -> HostError:
    return HostError(
        f"{operation.verb} of host {operation.target_name}: virtmgr failed by a defect of its own "
        f"({type(error).__name__})",
        code="internal_error",
        hint="find the operation's id in the server's log and report it",
    )
