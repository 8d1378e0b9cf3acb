"""The inventory port: one unit of work is one database transaction.

``with units() as uow: …; uow.commit()``. Leaving without ``commit`` rolls back. Entities that a
repository returns are live: changing their attributes changes the row at commit. On SQLite a unit
of work begins with BEGIN IMMEDIATE, on PostgreSQL with READ COMMITTED and row locks where a method
says so; ``read_only=True`` never takes a write lock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from virtmgr.domain.failover import Failover
from virtmgr.domain.fencing import FenceDevice
from virtmgr.domain.host import Cluster, Host, HostAccess, Pool
from virtmgr.domain.image import Image
from virtmgr.domain.leadership import Term
from virtmgr.domain.leases import HostLease
from virtmgr.domain.migration import Migration, Phase
from virtmgr.domain.network import Address, Network
from virtmgr.domain.operation import Event, IdempotencyKey, LogLine, Operation, StreamTicket
from virtmgr.domain.overview import HostSize, WorkloadCount
from virtmgr.domain.project import Project, Quota, RoleBinding, Token, User
from virtmgr.domain.scheduling import Amounts, PlacedWorkload
from virtmgr.domain.usage_history import TimedPoint, UsageSlice
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import Kind, Nic, Usage, Workload
from virtmgr.domain.workload import Port as PublishedPort

T = TypeVar("T")


@dataclass(frozen=True)
class ListQuery:
    """What a list asks for.

    ``filters`` maps a column's API name (``kind``, ``state``, ``host``, …) to a value or a tuple
    of values, any of which matches. ``labels`` must all be carried. ``text`` matches names that
    contain it, case-insensitively. ``sort`` is a column's API name, ``-`` in front for
    descending; ids break ties. ``cursor`` is what a page gave as ``next_cursor``.
    ``project_ids`` limits to those projects (None: no limit). ``count`` asks how many match in all.
    """

    filters: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    sort: str = "name"
    limit: int = 100
    cursor: str | None = None
    project_ids: frozenset[str] | None = None
    count: bool = False


@dataclass(frozen=True)
class Page(Generic[T]):
    """``total`` is how many match on all pages; None: that was not asked."""

    items: Sequence[T]
    next_cursor: str | None = None
    total: int | None = None


class Repository(Protocol[T]):
    """What every kind of resource offers."""

    def add(self, entity: T) -> None:
        """Insert at once (flush), so that constraints speak here.

        :raises NameTaken: a unique constraint is violated.
        """
        ...

    def add_all(self, entities: Sequence[T]) -> None:
        """Insert several in one statement, for a third of what ``add`` costs. What is changed of
        these afterwards is not written: change what is found. With more than one the error does
        not say which of them it is."""
        ...

    def get(self, id: str) -> T | None: ...

    def by_ids(self, ids: Iterable[str]) -> Mapping[str, T]:
        """Those of these that there are, by id, in one query."""
        ...

    def called(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Their names alone by id, in one query; of resources that have names."""
        ...

    def lock(self, id: str) -> T | None:
        """Like ``get``, but fresh from the database and locked until the end of the unit."""
        ...

    def remove(self, entity: T) -> None: ...

    def list(self, query: ListQuery) -> Page[T]:
        """One page.

        :raises InvalidRequest: unknown filter or sort column, or a cursor that is not ours.
        """
        ...


class NamedRepository(Repository[T], Protocol[T]):
    """Resources with a name that is unique everywhere."""

    def find(self, reference: str) -> T | None:
        """By id or by name."""
        ...


class ProjectRepository(Repository[T], Protocol[T]):
    """Resources with a name that is unique in their project."""

    def find(self, project_id: str, reference: str) -> T | None:
        """By id or by name, only in this project."""
        ...


class ImageRepository(NamedRepository[Image], Protocol):
    def find(self, reference: str) -> Image | None:
        """By id, name or alias."""
        ...

    def set_aliases(self, image: Image, aliases: Iterable[str]) -> None:
        """Replace its aliases, each unique among all images' names and aliases.

        :raises NameTaken: one is in use.
        """
        ...

    def find_by_blob(self, digest: str) -> bool:
        """Whether any image refers to this blob."""
        ...

    def on_host(self, host_id: str) -> Sequence[Image]:
        """Images that the host has at hand, by name."""
        ...


class NetworkRepository(ProjectRepository[Network], Protocol):
    def find(self, project_id: str, reference: str) -> Network | None:
        """By id or name in the project, else among the shared networks."""
        ...

    def find_shared(self, reference: str) -> Network | None:
        """By id or name among those that all projects share."""
        ...

    def loads(
        self, network_ids: Iterable[str], project_ids: frozenset[str] | None
    ) -> Sequence[NetworkLoad]:
        """How many workloads of these projects (None: of all) have NICs on these networks, by
        network and host."""
        ...

    def of_host(self, host_id: str) -> Sequence[Network]:
        """Networks that workloads on the host have NICs on, or some that come to it live."""
        ...

    def names(
        self, network_ids: Iterable[str], host_id: str | None = None
    ) -> Sequence[NetworkMember]:
        """Every NIC on these networks.

        :param host_id: only NICs of what is on this host, or on its way to it.
        """
        ...

    def vnis(self) -> frozenset[int]:
        """VXLAN network identifiers that are taken."""
        ...

    def overlays(self, network_ids: Iterable[str]) -> Sequence[str]:
        """Those of these networks that are overlays, by id."""
        ...


class NetworkLoad(NamedTuple):
    """How many workloads of a host are on a network."""

    network_id: str
    host_id: str | None  # None: not placed
    host_name: str | None
    workloads: int


class NetworkMember(NamedTuple):
    """A NIC on a network, with what DNS, DHCP and overlays need of its workload."""

    network_id: str
    name: str
    kind: Kind
    host_id: str | None
    mac: str
    addresses: tuple[str, ...]


class Port(NamedTuple):
    """A NIC as it is shown, and told to hosts: no entity, for there are many at once. ``position``
    is its index."""

    id: str
    position: int
    network_id: str
    mac: str
    addresses: tuple[str, ...]


class AddressRepository(Repository[Address], Protocol):
    def taken(self, network_id: str) -> frozenset[str]: ...

    def of_nics(self, nic_ids: Iterable[str]) -> Mapping[str, Sequence[Address]]: ...


class NicRepository(Repository[Nic], Protocol):
    def of_workloads(self, workload_ids: Iterable[str]) -> Mapping[str, Sequence[Nic]]:
        """NICs by workload, in the order of their index."""
        ...

    def ports(self, workload_ids: Iterable[str]) -> Mapping[str, Sequence[Port]]:
        """The same as plain values, with their addresses, in one statement."""
        ...


class WorkloadRepository(ProjectRepository[Workload], Protocol):
    def explanation(self, id: str) -> dict[str, Any] | None:
        """Of the workload's last placement: long, so that workloads are found without it."""
        ...

    def usages(self, ids: Iterable[str], host_id: str) -> Mapping[str, Usage | None]:
        """What those of these that are the host's were last seen to use, by id; None: nothing was
        seen. Loads no entity."""
        ...

    def note_usages(self, usages: Mapping[str, Usage], host_id: str) -> None:
        """Write what workloads of the host use, by id, at once: nothing else of their status
        changes. The host is locked, so nobody else changes these."""
        ...

    def on_host(self, host_id: str, *, after_revision: int = -1) -> Sequence[Workload]:
        """Workloads of the host whose ``revision`` is greater than ``after_revision``."""
        ...

    def ha_on(self, host_id: str) -> Sequence[Workload]:
        """Highly available workloads of a host, by id."""
        ...

    def ha_claims(self) -> Mapping[str, Amounts]:
        """What the highly available workloads of each host claim; hosts with none are left out."""
        ...

    def counts(self, project_ids: frozenset[str] | None) -> Sequence[WorkloadCount]:
        """How many there are of each kind in each state, in these projects (None: in all)."""
        ...

    def copies_of(self, workload_id: str) -> Sequence[Workload]:
        """Clones of it that are not made yet."""
        ...

    def published(self) -> Sequence[tuple[str, tuple[PublishedPort, ...]]]:
        """(host id, ports) of all placed ones that publish some and are not being deleted."""
        ...

    def first_called(self, project_id: str, names: Collection[str]) -> str | None:
        """One of these names that a workload of the project has; None: all are free."""
        ...

    def with_affinity(self, project_ids: Collection[str] | None = None) -> Sequence[PlacedWorkload]:
        """All placed ones that have affinity rules.

        :param project_ids: of these projects only.
        """
        ...

    def placed(self, project_ids: Collection[str] | None = None) -> Sequence[PlacedWorkload]:
        """All placed ones, without their affinity rules.

        :param project_ids: of these projects only.
        """
        ...


class VolumeRepository(ProjectRepository[Volume], Protocol):
    def of_workload(self, workload_id: str) -> Sequence[Volume]: ...

    def of_workloads(self, workload_ids: Iterable[str]) -> Mapping[str, Sequence[Volume]]:
        """The same of many at once, by their ids, in the order of the volumes' ids."""
        ...

    def on_host(self, host_id: str) -> Sequence[Volume]: ...


class QuotaRepository(Repository[Quota], Protocol):
    def charge(self, project_id: str, amounts: Mapping[str, float]) -> None:
        """Add ``amounts`` (keys workloads, vcpus, memory, disk, volumes, addresses; negative to
        give back) to what the project uses, in one conditional UPDATE.

        :raises QuotaExceeded: where a positive amount would pass its limit; the message names
            the resource, what is used, asked and allowed; ``detail`` has them as numbers.
        """
        ...

    def check(self, project_id: str, amounts: Mapping[str, float]) -> None:
        """Refuse as ``charge`` would, and take and lock nothing: others may still be faster."""
        ...

    def give_back(self, project_id: str, amounts: Mapping[str, float]) -> None:
        """Take what is positive here off what the project uses, once the unit is committed: units
        that give back to several projects do it in the order of ids."""
        ...


class Duties(NamedTuple):
    """What a sync has to look at further. Most have none of it, and are not to ask one by one."""

    ha: bool  # it has highly available workloads
    leftovers: bool  # it has what was restarted on another host
    moves: bool  # workloads are on their way from it or to it
    volumes: bool  # it has volumes that are to be removed
    images: bool  # it has images at hand that are not in the inventory (any more)


class Renewal(NamedTuple):
    """What a host is told whose lease was renewed."""

    lease_seconds: float
    prune_nonce: int


class Heartbeat(NamedTuple):
    """A host that shows a certificate (``serial``) and has nothing to say."""

    host_id: str
    serial: str


class HostRepository(NamedRepository[Host], Protocol):
    def all(self, *, locked: bool = False) -> Sequence[Host]:
        """Every host; ``locked``: fresh, and nobody else claims before this unit ends."""
        ...

    def marks(self, *, locked: bool = False) -> frozenset[str]:
        """``ID:VERSION`` of every host, as it is now; ``locked``: nobody else claims before this
        unit ends. Loads no entity, and is fast with thousands of hosts."""
        ...

    def those(self, ids: Collection[str]) -> Sequence[Host]:
        """These hosts; those that are gone are left out."""
        ...

    def sizes(self) -> Sequence[HostSize]:
        """Every host as sums need it; loads no entity."""
        ...

    def lock_all_of(self, ids: Iterable[str]) -> Sequence[Host]:
        """These hosts, fresh and locked in the order of their ids; those that are gone are left
        out. Call it before anything else is locked: see docs/architecture.md."""
        ...

    def claim(self, host_id: str, version: int, *, vcpus: float, memory: int, disk: int) -> bool:
        """Add to the host's claims if its version is still ``version``; bumps version.

        False: somebody else was faster, or a claim would go below zero. One UPDATE.
        """
        ...

    def claim_all(
        self, claims: Mapping[str, Amounts], versions: Mapping[str, int]
    ) -> Mapping[str, int] | None:
        """``claim`` and ``next_revision`` for several hosts, locked in the order of their ids, all
        or none; their revisions.

        None: one has changed since it was at its version.
        """
        ...

    def release(self, host_id: str, *, vcpus: float, memory: int, disk: int) -> None:
        """Give claims back (never below zero); bumps version."""
        ...

    def next_revision(self, host_id: str) -> int:
        """Bump and return the host's desired revision. One UPDATE … RETURNING."""
        ...

    def next_revisions(
        self, network_ids: Collection[str], *, besides: Collection[str] = ()
    ) -> Sequence[str]:
        """Bump the desired revision of every host with a workload on these networks; their ids.

        Locks them in the order of their ids, so call it in a unit that has locked no host yet.
        """
        ...

    def renew(
        self, host_id: str, revision: int, serial: str | None, now: datetime
    ) -> Renewal | None:
        """Note a sync of a host that speaks, knows this revision, and has nothing to say.

        None: it is another host, or there is more to say to it.

        :param serial: of the certificate that it came with; None where that was checked before.
        """
        ...

    def renew_all(self, heartbeats: Sequence[Heartbeat], now: datetime) -> Mapping[str, int]:
        """Renew the usual lease of hosts that speak; their revisions, by id.

        Left out are hosts whose certificate is another one, which are silent or have a lease of
        another length, and which somebody else has locked just now.
        """
        ...

    def removing(self) -> Sequence[Host]:
        """Those that were asked to clear up."""
        ...

    def leases(self) -> Sequence[HostLease]:
        """The leases of all hosts that have synced; no entities."""
        ...

    def count_synced(self) -> int:
        """How many hosts have ever synced."""
        ...

    def lost(self) -> Sequence[Host]:
        """Those that are silent, by id."""
        ...

    def duties(self, host_id: str) -> Duties:
        """What its syncs have to look after; one statement."""
        ...

    def silent_shares(self) -> Mapping[str, tuple[int, int]]:
        """Of each cluster, how many of its hosts are silent, and how many there are that have
        synced. Those that are known to be off are left out: they explain themselves."""
        ...

    def tunnels(self) -> Mapping[str, str]:
        """Tunnel addresses by host id; hosts without one are left out."""
        ...

    def with_image(self, image_id: str) -> Sequence[Host]:
        """Hosts that have the image at hand, by name."""
        ...

    def images_at_hand(self, image_ids: Iterable[str]) -> Mapping[str, frozenset[str]]:
        """Which of these images each host has at hand, by host; hosts with none are left out."""
        ...

    def having_image(self, image_id: str) -> frozenset[str]:
        """Ids of the hosts that have an image at hand."""
        ...

    def note_images(self, host_id: str, image_ids: Iterable[str]) -> bool:
        """These images, and no others, are what the host has at hand; whether some are new."""
        ...

    def unknown_images(self, host_id: str) -> Sequence[str]:
        """Ids of images that the host has at hand and that are not in the inventory (any more)."""
        ...

    def unneeded_images(self, host_id: str | None = None) -> Sequence[tuple[str, str]]:
        """(host id, image id) of images at hand that no workload of the host needs."""
        ...

    def ask_to_prune(self, host_ids: Collection[str]) -> None:
        """Bump the hosts' ``prune_nonce``, and their ``revision``, so that they hear of it."""
        ...

    def on_machine(self, machine_id: str) -> Sequence[Host]:
        """Hosts that are this machine."""
        ...

    def by_certificate(self, serial: str) -> Host | None: ...

    def by_join_token(self, secret_hash: str) -> Host | None: ...


class HostAccessRepository(Protocol):
    def add(self, access: HostAccess) -> None: ...

    def get(self, host_id: str) -> HostAccess | None: ...

    def at(self, address: str) -> Sequence[HostAccess]:
        """Those with this address, as it is written."""
        ...


class FenceDeviceRepository(Protocol):
    def of_host(self, host_id: str) -> Sequence[FenceDevice]:
        """By level and name."""
        ...

    def add(self, device: FenceDevice) -> None: ...

    def remove(self, device: FenceDevice) -> None: ...


class TokenRepository(Repository[Token], Protocol):
    def shown(self, secret_hash: str) -> tuple[Token, User, Sequence[RoleBinding]] | None:
        """A token, its user, and the user's role bindings by id; one statement."""
        ...


class RoleBindingRepository(Repository[RoleBinding], Protocol):
    def of_user(self, user_id: str) -> Sequence[RoleBinding]: ...


class PoolRepository(Repository[Pool], Protocol):
    def of_host(self, host_id: str) -> Sequence[Pool]: ...

    def note(self, pools: Sequence[Pool]) -> None:
        """Write what hosts say of their pools. One that is known by its host and name stays the
        one that it is, and gets this path, capacity and use."""
        ...


class OperationRepository(Repository[Operation], Protocol):
    def open_for(self, target_id: str) -> Sequence[Operation]:
        """Operations on a target that are not finished, oldest first."""
        ...

    def open_for_all(self, target_ids: Collection[str]) -> Mapping[str, Sequence[Operation]]:
        """The same of many targets at once, by their ids; those that have none are left out."""
        ...

    def open_by(self, verb: str) -> Sequence[Operation]:
        """Those of a verb that are not finished, oldest first."""
        ...

    def last(self, verb: str, target_id: str) -> Operation | None:
        """The latest of a verb on a target."""
        ...

    def take(
        self, verbs: Iterable[str], owner: str, lease_until: datetime, now: datetime
    ) -> Operation | None:
        """Claim the oldest unfinished operation of these verbs that nobody holds a live lease on.

        Marks it running. One UPDATE … RETURNING; safe among processes.
        """
        ...


class OperationLog(Protocol):
    def append(self, operation_id: str, at: datetime, texts: Iterable[str]) -> None: ...

    def after(self, operation_id: str, sequence: int, *, limit: int) -> Sequence[LogLine]:
        """Lines with a greater sequence, oldest first."""
        ...


class MigrationRepository(Repository[Migration], Protocol):
    """Open is a migration until it is done or has failed."""

    def open_of(self, workload_id: str) -> Migration | None:
        """The one that is moving a workload."""
        ...

    def open_on(self, host_id: str) -> Sequence[Migration]:
        """Those from or to a host, oldest first."""
        ...

    def ids_on(self, host_id: str) -> Sequence[str]:
        """The ids of ``open_on``; loads no entity."""
        ...

    def all_open(self) -> Sequence[Migration]: ...

    def hosts_of(self, ids: Iterable[str]) -> frozenset[str]:
        """Ids of the hosts that the open ones among these are from or to; loads no entity."""
        ...

    def sources_of(self, workload_id: str, since: datetime) -> frozenset[str]:
        """Ids of the hosts that a workload has been moved from; loads no entity."""
        ...

    def of_drain(self, operation_id: str) -> Sequence[Migration]:
        """All that belong to a drain, open or not, oldest first."""
        ...

    def phases_of_drain(self, operation_id: str) -> Mapping[Phase, int]:
        """How many of a drain's are in each phase; loads no entity."""
        ...

    def of_rebalancing(self, operation_id: str) -> Sequence[Migration]:
        """Those that an operation of rebalancing has begun, the oldest first."""
        ...

    def take(self, owner: str, lease_until: datetime, now: datetime) -> Migration | None:
        """Claim the oldest that a worker has something to do for and nobody holds a live lease on.

        One UPDATE … RETURNING; safe among processes.
        """
        ...

    def renew(self, id: str, owner: str, lease_until: datetime, copied: int) -> bool:
        """Prolong the lease and note what is copied; False: it is not the owner's any more, or is
        to be given up."""
        ...


class FailoverRepository(Repository[Failover], Protocol):
    """Open is a failover while it waits, or something is left on the lost host."""

    def waiting_on(self, host_id: str) -> Sequence[Failover]:
        """Those of a host's workloads that wait, oldest first."""
        ...

    def left_on(self, host_id: str) -> Sequence[Failover]:
        """Those of which a lost host has something left, oldest first."""
        ...

    def open_of(self, workload_id: str) -> Sequence[Failover]:
        """All that are open of one workload."""
        ...

    def lost_by(self, workload_id: str, since: datetime) -> frozenset[str]:
        """Ids of the lost hosts that a workload was on; loads no entity."""
        ...


class EventRepository(Protocol):
    def append(self, event: Event) -> None: ...

    def after(
        self,
        sequence: int,
        *,
        limit: int,
        project_ids: frozenset[str] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> Sequence[Event]:
        """Events with a greater sequence, oldest first."""
        ...

    def list(self, query: ListQuery) -> Page[Event]:
        """Newest first by default (sort ``-sequence``)."""
        ...

    def last_sequence(self) -> int: ...


class TicketRepository(Repository[StreamTicket], Protocol):
    def redeem(self, secret_hash: str, now: datetime) -> StreamTicket | None:
        """Mark an unexpired, unused ticket used and return it; None otherwise. One UPDATE."""
        ...

    def purge(self, before: datetime) -> None: ...


class UsageHistoryRepository(Protocol):
    """What hosts and workloads have used (``domain/usage_history.py``)."""

    def add(self, host_id: str, slices: Iterable[UsageSlice]) -> None:
        """Keep those of a host that are not kept yet; the caller has locked it."""
        ...

    def points(
        self, host_ids: Iterable[str], workload_id: str | None, seconds: int, since: datetime
    ) -> Sequence[TimedPoint]:
        """Steps of this length that ended after ``since``, by time: of a workload on any of these
        hosts, or (None) of the host itself."""
        ...

    def purge(self, seconds: int, before: datetime) -> None:
        """Drop steps of this length that ended before."""
        ...


class IdempotencyRepository(Protocol):
    def get(self, user_id: str, key: str) -> IdempotencyKey | None: ...

    def add(self, entry: IdempotencyKey) -> None: ...

    def purge(self, before: datetime) -> None: ...


class SettingRepository(Protocol):
    """Small facts of the installation itself, such as when it was initialised."""

    def get(self, key: str) -> str | None: ...

    def set(self, key: str, value: str) -> None: ...


class LeadershipRepository(Protocol):
    """Leases of jobs that one control plane at a time does (``domain/leadership.py``)."""

    def take(self, name: str, holder: str) -> Term | None:
        """Take or renew a lease; None: another holder's has not run out.

        The unit of work is to be left without commit then.
        """
        ...

    def release(self, term: Term) -> None:
        """Let another take over at once."""
        ...

    def holds(self, term: Term) -> bool:
        """Whether the term is still the present one; until the unit ends it stays so.

        What a job commits in the same unit is then committed by one holder only, even if it was
        stopped for a while in between.
        """
        ...

    def live(self) -> bool:
        """Whether any control plane runs, or was killed just now."""
        ...

    def now(self) -> datetime:
        """The database's time, UTC."""
        ...


class UnitOfWork(Protocol):
    """One transaction over the whole inventory."""

    projects: NamedRepository[Project]
    quotas: QuotaRepository
    users: NamedRepository[User]
    role_bindings: RoleBindingRepository
    tokens: TokenRepository
    clusters: NamedRepository[Cluster]
    hosts: HostRepository
    host_access: HostAccessRepository
    fence_devices: FenceDeviceRepository
    pools: PoolRepository
    images: ImageRepository
    volumes: VolumeRepository
    networks: NetworkRepository
    addresses: AddressRepository
    nics: NicRepository
    workloads: WorkloadRepository
    migrations: MigrationRepository
    failovers: FailoverRepository
    operations: OperationRepository
    operation_log: OperationLog
    events: EventRepository
    tickets: TicketRepository
    idempotency: IdempotencyRepository
    settings: SettingRepository
    leaderships: LeadershipRepository
    usage_history: UsageHistoryRepository

    def flush(self) -> None: ...

    def commit(self) -> None:
        """Make it durable. Then the callbacks of ``after_commit`` run, in order."""
        ...

    def rollback(self) -> None: ...

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` once the transaction is durable; dropped on rollback.

        What it raises is logged, and the commit stands: who needs the outcome looks for it.
        """
        ...


class UnitOfWorkFactory(Protocol):
    def __call__(self, *, read_only: bool = False) -> AbstractContextManager[UnitOfWork]: ...

    def stamp(self) -> Hashable:
        """Where the inventory is at: while it stays equal, nothing has been committed. Cheap."""
