"""The sync protocol between control plane and agent: desired goes down, observed goes up.

Sync is idempotent: it may be lost, repeated or delayed. Desired state is numbered by the host's
``revision``; the agent says which one it knows and is sent what changed since, or everything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field, field_validator

from virtmgr.domain.host import Fingerprint
from virtmgr.domain.image import ImageManifest
from virtmgr.domain.network import NetworkType, is_routed
from virtmgr.domain.usage_history import UsageSlice
from virtmgr.domain.values import Message, Value
from virtmgr.domain.workload import (
    Init,
    Kind,
    PowerState,
    Reason,
    State,
    Usage,
    WorkloadSpec,
    WorkloadStatus,
)

PROTOCOL = 1

ACCEPTS = "Virtmgr-Accepts"
"""The header of an answer that names, separated by blanks, what may be said beyond the protocol."""

USAGE_HISTORY = "usage-history"
"""In it: ``SyncRequest.usage_history`` is taken."""

FILE_SYSTEMS = "file-systems"
"""In it: ``SyncRequest.file_systems`` is taken."""

_STATES = frozenset(State)


class DesiredImage(Value):
    id: str
    name: str
    manifest: ImageManifest


class DesiredVolume(Value):
    """A volume that a workload uses on this host."""

    id: str
    name: str
    size: int  # bytes
    path: str | None = None  # containers: where it is mounted
    read_only: bool = False
    copy_of: str | None = None  # id of the volume whose content it gets when it is cloned


class CloneSource(Value):
    """The workload on this host whose root disk a new one gets a copy of."""

    id: str
    name: str


class Arrival(Value):
    """What came from another host for a workload, and is to become its disks here."""

    id: str  # of the migration


class MigrationLimits(Value):
    """What a live migration may take, and what to do where the guest writes faster than it
    goes."""

    bandwidth: int = 0  # MiB a second; 0: no limit
    downtime: int = 300  # milliseconds, at most, at first
    steps: int = 4  # how often the downtime is doubled where it does not converge
    pause: bool = False  # after that, let the guest stand still until all is there; else give up


class Incoming(Value):
    """A workload that comes from another host while it runs; it is to be received."""

    id: str  # of the migration
    source_host_id: str
    ticket_hash: str  # SHA-256, hexadecimal, of what the source's agent shows


class Outgoing(Value):
    """A workload that is to go to another host while it runs."""

    id: str  # of the migration
    target_host_id: str
    target_url: str  # of the streams of its agent
    ticket: str
    cancelled: bool = False
    limits: MigrationLimits = MigrationLimits()


class DesiredNic(Value):
    """A NIC with its addresses; ``index`` n is eth``n`` in a container."""

    id: str
    index: int
    network_id: str
    mac: str
    ipv4: str | None = None  # with prefix length: 10.40.0.5/16
    ipv6: str | None = None
    gateway4: str | None = None
    gateway6: str | None = None
    dns: tuple[str, ...] = ()
    dns_domain: str = ""  # full domain of names on the network: default.virt
    dhcp: bool = True  # virtmgr answers DHCP on its network, with these addresses
    mtu: int = 1500


class DesiredWorkload(Message):
    """A workload as its host should run it, every reference resolved."""

    id: str
    project: str  # name, for people
    name: str
    kind: Kind
    init: Init | None
    generation: int
    revision: int
    spec: WorkloadSpec
    state: PowerState
    deleting: bool = False
    force_stop: bool = False
    restart_nonce: int = 0
    image: DesiredImage | None = None
    cdrom: DesiredImage | None = None
    nics: tuple[DesiredNic, ...] = ()
    volumes: tuple[DesiredVolume, ...] = ()
    clone_of: CloneSource | None = None  # until the copy is made
    arrival: Arrival | None = None  # until it is taken up
    cpu: str | None = None  # the model that a VM sees from its next start; None: its host's own
    machine: str | None = None  # its machine type from its next start; None: its host's newest
    incoming: Incoming | None = None  # it is another host's, until that has let go of it
    outgoing: Outgoing | None = None  # until it is known how that went


class NetworkName(Value):
    """A name that a network's DNS answers, and its fixed DHCP lease."""

    name: str
    mac: str
    ipv4: str | None = None
    ipv6: str | None = None
    asks_dhcp: bool = False  # not every guest takes IPv6: its name has that address once leased
    tunnel: str | None = None  # overlays: the tunnel address of its host, where that is another


class DesiredNetwork(Message):
    """A network that a host's workloads are on."""

    id: str
    name: str
    type: NetworkType
    bridge: str  # device: the host's own for BRIDGE, else derived from the id
    ipv4: str | None = None
    ipv6: str | None = None
    gateway4: str | None = None
    gateway6: str | None = None
    dns_domain: str = ""  # default.virt
    mtu: int = 1500
    vni: int | None = None  # overlays
    tunnel: str | None = None  # overlays: this host's own tunnel address
    interface: str | None = None  # VLANs: the host's interface
    vlan: int | None = None  # VLANs: the id
    names: tuple[NetworkName, ...] = ()

    @property
    def is_routed(self) -> bool:
        """Whether the host is its gateway, with DHCP, DNS, NAT and published ports."""
        return is_routed(self.type)

    @property
    def is_own(self) -> bool:
        """Whether its bridge is virtmgr's, to be made and removed."""
        return self.type is not NetworkType.BRIDGE


class ObservedMove(Value):
    """How far a live migration is, as one of its two hosts sees it.

    ``ready`` and ``arrived`` are said by the target, ``departed`` and ``stayed`` by the source: the
    last two are on its disk before they are said, exclude each other, and are never taken back.
    """

    id: str
    ready: bool = False  # all is made that it comes to
    refused: bool = False  # that cannot be made, for ``reason``
    arrived: bool = False  # it was let run here
    departed: bool = False  # it is gone, whole, and will not run here again
    stayed: bool = False  # it is here as before, for ``reason``, and will not go any more
    reason: Reason | None = None
    progress: float | None = None  # 0 … 1
    copied: int = 0  # bytes
    message: str = ""  # for people


class ObservedWorkload(Value):
    """What the agent saw of one workload. ``gone``: nothing of it is left on the host."""

    id: str
    observed_generation: int
    status: WorkloadStatus
    gone: bool = False
    restart_nonce: int = 0  # the last one carried out
    cloned: bool = False  # it has its copy: its source is free again
    arrived: str = ""  # id of the last arrival that it has taken up
    move: ObservedMove | None = None  # of one that is live

    @field_validator("status", mode="before")
    @classmethod
    def _what_is_not_known_is_unknown(cls, status: Any) -> Any:
        """A newer agent may say a state that is not known here: nobody guesses what it means."""
        said = status.get("state") if isinstance(status, dict) else None
        if not isinstance(said, str) or said in _STATES:
            return status
        words = status.get("progress") or f"its agent is newer and says {said[:64]!r}"
        return {**status, "state": State.UNKNOWN.value, "progress": words}


class ObservedVolume(Value):
    id: str
    ready: bool
    reason: Reason | None = None
    gone: bool = False


class ObservedPool(Value):
    name: str
    path: str
    capacity: int
    used: int


class ObservedFileSystem(Value):
    """One of the host's own, which no pool is on."""

    path: str = Field(max_length=4096)
    capacity: int = Field(gt=0)  # bytes
    used: int = Field(ge=0)  # bytes


class SyncOrder(Message):
    """Where a sync stands among all of its host's: ``run`` names the agent's process, which numbers
    what it sends."""

    run: str = Field(max_length=36)
    number: int = Field(ge=1)


class SyncRequest(Message):
    """What the agent sends.

    ``full`` says that ``workloads`` is all that it has. ``brief`` says that it tells and asks for
    little: networks and removals are answered only where the host's revision is another one. An
    agent asks in full every few seconds.
    """

    protocol: int = PROTOCOL
    order: SyncOrder | None = None  # of all but those that only renew the lease
    known_revision: int = 0
    full: bool = False
    brief: bool = False
    fingerprint: Fingerprint | None = None  # at the first sync and when it changed
    workloads: tuple[ObservedWorkload, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()
    pools: tuple[ObservedPool, ...] = ()
    file_systems: tuple[ObservedFileSystem, ...] | None = None  # where taken; None: as said before
    images: tuple[str, ...] | None = None  # ids of all that are at hand; None: as said before
    usage: dict[str, Usage] = Field(default_factory=dict)  # by workload id
    usage_history: tuple[UsageSlice, ...] = ()  # not yet answered; where they are taken
    arrivals: tuple[str, ...] = ()  # ids of those that lie here
    trusted_authorities: tuple[str, ...] = ()  # fingerprints; at the first sync, and when changed

    @property
    def only_renews(self) -> bool:
        """Whether all that it wants is the lease renewed."""
        return self.brief and self == SyncRequest(brief=True, known_revision=self.known_revision)

    def numbered(self, run: str, number: int) -> SyncRequest:
        """This, with its place in the order: what only renews the lease tells nothing, and needs
        none."""
        if self.only_renews:
            return self
        return self.model_copy(update={"order": SyncOrder(run=run, number=number)})


class SyncResponse(Message):
    """What the control plane answers.

    ``full``: ``workloads`` is all that should be on the host, and what is not in it must go.
    Otherwise ``workloads`` holds what changed after ``known_revision``. ``networks`` holds every
    network that the host's workloads are on; None, after a brief request, says: those said before.
    """

    protocol: int = PROTOCOL
    revision: int
    full: bool
    workloads: tuple[DesiredWorkload, ...] = ()
    networks: tuple[DesiredNetwork, ...] | None = ()
    removed_volumes: tuple[str, ...] = ()  # ids whose files must go
    removed_images: tuple[str, ...] = ()  # ids at hand that are not in the inventory any more
    removed_arrivals: tuple[str, ...] = ()  # those that lie there and nobody needs (any more)
    authorities: str = ""  # PEM of the CAs to trust, where the agent trusts others
    prune_nonce: int = 0  # where it changed, images that no workload needs go at once
    report_all: bool = False  # the agent should send all that it observes, not only changes
    lease_seconds: float = 30.0
    server_time: datetime
