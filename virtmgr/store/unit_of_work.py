"""Units of work over SQL: one transaction, one session, all repositories.

- Queries see what the unit has changed: pending changes are flushed before each query.
- Entities stay readable after commit and after the unit has ended; nothing is reloaded.
- A unit begins with BEGIN IMMEDIATE on SQLite, so nest no writing unit in another one: it would
  wait for itself (and is refused after ``engine.WRITER_PATIENCE``).
- After a domain error from the database (NameTaken, …) the unit is over: leave it, open another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.host import Cluster
from virtmgr.domain.project import Project, User
from virtmgr.ports.unit_of_work import (
    AddressRepository,
    EventRepository,
    FailoverRepository,
    FenceDeviceRepository,
    HostAccessRepository,
    HostRepository,
    IdempotencyRepository,
    ImageRepository,
    LeadershipRepository,
    MigrationRepository,
    NamedRepository,
    NetworkRepository,
    NicRepository,
    OperationLog,
    OperationRepository,
    PoolRepository,
    QuotaRepository,
    RoleBindingRepository,
    SettingRepository,
    TicketRepository,
    TokenRepository,
    UsageHistoryRepository,
    VolumeRepository,
    WorkloadRepository,
)
from virtmgr.store import image_index, mapping
from virtmgr.store.engine import make_reader
from virtmgr.store.repositories.events import SqlEvents
from virtmgr.store.repositories.failovers import SqlFailovers
from virtmgr.store.repositories.fence_devices import SqlFenceDevices
from virtmgr.store.repositories.hosts import SqlClusters, SqlHostAccess, SqlHosts, SqlPools
from virtmgr.store.repositories.images import SqlImages
from virtmgr.store.repositories.leaderships import SqlLeaderships
from virtmgr.store.repositories.migrations import SqlMigrations
from virtmgr.store.repositories.networks import SqlAddresses, SqlNetworks, SqlNics
from virtmgr.store.repositories.operations import SqlOperationLog, SqlOperations
from virtmgr.store.repositories.projects import SqlProjects, SqlQuotas
from virtmgr.store.repositories.tickets import SqlIdempotency, SqlSettings, SqlTickets
from virtmgr.store.repositories.usage_history import SqlUsageHistory
from virtmgr.store.repositories.users import SqlRoleBindings, SqlTokens, SqlUsers
from virtmgr.store.repositories.volumes import SqlVolumes
from virtmgr.store.repositories.workloads import SqlWorkloads
from virtmgr.store.session import InventorySession
from virtmgr.store.stamps import stamps_of

_log = structlog.get_logger(__name__)

mapping.map_domain()
image_index.keep_index()


class SqlUnitOfWork:
    """One transaction over the whole inventory; made by ``SqlUnitOfWorkFactory``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._events = SqlEvents(session)
        self._callbacks: list[Callable[[], None]] = []
        self.projects: NamedRepository[Project] = SqlProjects(session)
        self._quotas = SqlQuotas(session)
        self.quotas: QuotaRepository = self._quotas
        self.users: NamedRepository[User] = SqlUsers(session)
        self.role_bindings: RoleBindingRepository = SqlRoleBindings(session)
        self.tokens: TokenRepository = SqlTokens(session)
        self.clusters: NamedRepository[Cluster] = SqlClusters(session)
        self.hosts: HostRepository = SqlHosts(session)
        self.host_access: HostAccessRepository = SqlHostAccess(session)
        self.pools: PoolRepository = SqlPools(session)
        self.fence_devices: FenceDeviceRepository = SqlFenceDevices(session)
        self.images: ImageRepository = SqlImages(session)
        self.volumes: VolumeRepository = SqlVolumes(session)
        self.networks: NetworkRepository = SqlNetworks(session)
        self.addresses: AddressRepository = SqlAddresses(session)
        self.nics: NicRepository = SqlNics(session)
        self.workloads: WorkloadRepository = SqlWorkloads(session)
        self.migrations: MigrationRepository = SqlMigrations(session)
        self.failovers: FailoverRepository = SqlFailovers(session)
        self.operations: OperationRepository = SqlOperations(session)
        self.operation_log: OperationLog = SqlOperationLog(session)
        self.events: EventRepository = self._events
        self.tickets: TicketRepository = SqlTickets(session)
        self.idempotency: IdempotencyRepository = SqlIdempotency(session)
        self.settings: SettingRepository = SqlSettings(session)
        self.usage_history: UsageHistoryRepository = SqlUsageHistory(session)
        self.leaderships: LeadershipRepository = SqlLeaderships(session)

    def __enter__(self) -> Self:
        try:
            self._session.connection()
        except PoolTimeout as error:
            self._session.close()
            raise Unavailable(
                "begin a unit of work: every database connection of this process is in use",
                code="database_busy",
                hint="try again; if it stays, a unit of work is held open somewhere",
            ) from error
        except BaseException:
            self._session.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._forget()
        self._session.close()  # rolls back; unlike rollback() it leaves entities readable

    def flush(self) -> None:
        self._session.flush()

    def commit(self) -> None:
        """Make it durable. Then the callbacks of ``after_commit`` run, in order; one that fails is
        logged, since what was asked for is done.

        :raises Conflict: a row was changed or deleted by somebody else meanwhile.
        """
        self.flush()
        self._quotas.flush_given_back()
        self._events.flush_events()
        self._session.commit()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001  what is durable is answered as such
                _log.exception("after_commit.failed")

    def rollback(self) -> None:
        self._forget()
        self._session.rollback()

    def after_commit(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def _forget(self) -> None:
        self._quotas.forget_given_back()
        self._events.forget_events()
        self._callbacks.clear()


class SqlUnitOfWorkFactory:
    """Opens units of work on one database. Make one per process, after any fork."""

    def __init__(self, engine: Engine) -> None:
        """:param engine: from ``make_engine``; its read-only companion is made here."""
        self._writer = engine
        self._reader = make_reader(engine)
        self._stamps = stamps_of(self._reader)
        self._write = sessionmaker(engine, class_=InventorySession, expire_on_commit=False)
        self._read = sessionmaker(self._reader, class_=InventorySession, autoflush=False)

    def __call__(self, *, read_only: bool = False) -> SqlUnitOfWork:
        return SqlUnitOfWork(self._read() if read_only else self._write())

    def stamp(self) -> Hashable:
        """Where the database is at: while it stays equal, nothing has been committed."""
        return self._stamps.now()

    def close(self) -> None:
        """Close every connection."""
        self._stamps.close()
        self._reader.dispose()
        self._writer.dispose()
