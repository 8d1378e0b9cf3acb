"""A host as the control plane sees one: it syncs, and does at once what it is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from tests.store.inventory import Inventory
from virtmgr.domain.host import DriverFacts, Fingerprint, Host, HostState, Tunnel
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import Blob, ContainerConfig, Image, ImageManifest, ImageState, ImageType
from virtmgr.domain.image import Kernel as KernelPart
from virtmgr.domain.leases import Seen
from virtmgr.domain.sync import (
    DesiredWorkload,
    ObservedMove,
    ObservedWorkload,
    SyncRequest,
    SyncResponse,
)
from virtmgr.domain.workload import GIB, PowerState, State, WorkloadStatus
from virtmgr.ports.driver import Feature
from virtmgr.services.container import Services
from virtmgr.services.silence import mark_unreachable
from virtmgr.services.sync import sync

_BLOB = Blob(digest="sha256:" + "0" * 64, size=1)
IMAGES = {
    "busybox": ImageManifest(type=ImageType.CONTAINER, config=ContainerConfig(command=("sh",))),
    "busybox-vm": ImageManifest(type=ImageType.KERNEL, kernel=KernelPart(kernel=_BLOB)),
}
_STATES = {
    PowerState.RUNNING: State.RUNNING,
    PowerState.STOPPED: State.STOPPED,
    PowerState.PAUSED: State.PAUSED,
}


class PretendHost:
    """Enrolled with the images of ``IMAGES`` at hand; ``wishes`` is what it should run."""

    def __init__(
        self,
        services: Services,
        *,
        without: frozenset[Feature] = frozenset(),
        tunnel: Tunnel | None = None,
        self_fencing: bool = True,
    ) -> None:
        self.services = services
        self.without = without
        self.self_fencing = self_fencing
        self.tunnel = tunnel or Tunnel(reason="it is pretended")
        self.id = new_id()
        self.known_revision = 0
        self.last: SyncResponse | None = None
        self.wishes: dict[str, DesiredWorkload] = {}
        now = datetime.now(UTC)
        with services.units() as uow:
            cluster = uow.clusters.find("default")
            assert cluster is not None
            host = Host(
                id=self.id,
                name=f"host-{self.id[-4:]}",
                cluster_id=cluster.id,
                state=HostState.ENROLLING,
                created_at=now,
            )
            uow.hosts.add(host)
            for name, manifest in IMAGES.items():
                if uow.images.find(name) is None:
                    uow.images.add(_image(name, manifest, now))
            uow.commit()
        self.sync(SyncRequest(full=True, fingerprint=self.fingerprint()))

    def fingerprint(self) -> Fingerprint:
        features = tuple(feature.value for feature in Feature if feature not in self.without)
        return Fingerprint(
            hostname="host",
            machine_id=self.id,
            boot_id="b",
            architecture="x86_64",
            vcpus=4,
            memory=8 * GIB,
            disk=100 * GIB,
            tunnel=self.tunnel,
            self_fencing=self.self_fencing,
            stream_url=f"wss://{self.id}",
            drivers=(
                DriverFacts(
                    name="fake",
                    healthy=True,
                    kinds=("container", "vm"),
                    inits=("app", "system"),
                    features=features,
                ),
            ),
        )

    def sync(self, request: SyncRequest) -> SyncResponse:
        """One sync, which is also taken in."""
        answer = sync(self.services, self.id, request)
        if answer.full:
            self.wishes.clear()
        self.wishes.update({wish.id: wish for wish in answer.workloads})
        self.known_revision, self.last = answer.revision, answer
        return answer

    def sync_down(self) -> None:
        """Learn what is desired now, and do nothing yet."""
        self.sync(SyncRequest(known_revision=self.known_revision))

    def converge(self) -> None:
        """Everything is as desired, and the control plane knows."""
        self.sync_down()
        gone = [wish.id for wish in self.wishes.values() if wish.deleting]
        self.report(*(_done(wish) for wish in self.wishes.values()))
        for workload_id in gone:
            self.wishes.pop(workload_id, None)

    def report(self, *observed: ObservedWorkload) -> None:
        self.sync(SyncRequest(known_revision=self.known_revision, workloads=observed))

    def wish(self, name: str) -> DesiredWorkload:
        """What is desired of the workload of this name, as of the last sync."""
        return next(wish for wish in self.wishes.values() if wish.name == name)

    def dns_names(self) -> set[str]:
        """What the DNS of its networks should answer, as of the last sync."""
        assert self.last is not None
        return {entry.name for network in self.last.networks for entry in network.names}


def fall_silent(services: Services, *speaking: PretendHost, seconds: float = 60) -> dict[str, Seen]:
    """Every host but ``speaking`` has not renewed its lease for so long, and is unreachable."""
    with services.units(read_only=True) as uow:
        leases = uow.hosts.leases()
    ours = [host.id for host in speaking]
    seen = {one.host_id: Seen(one, seconds) for one in leases if one.host_id not in ours}
    mark_unreachable(services, seen)
    return seen


def _image(name: str, manifest: ImageManifest, now: datetime) -> Image:
    return replace(
        Inventory().make_image(
            name=name, type=manifest.type, state=ImageState.READY, manifest=manifest
        ),
        created_at=now,
    )


def _done(wish: DesiredWorkload) -> ObservedWorkload:
    return ObservedWorkload(
        id=wish.id,
        observed_generation=wish.generation,
        restart_nonce=wish.restart_nonce,
        status=WorkloadStatus(state=_STATES[wish.state]),
        gone=wish.deleting,
        cloned=wish.clone_of is not None,
        arrived=wish.arrival.id if wish.arrival is not None else "",
        move=_moved(wish),
    )


def _moved(wish: DesiredWorkload) -> ObservedMove | None:
    if wish.incoming is not None:
        return ObservedMove(id=wish.incoming.id, ready=True)
    if wish.outgoing is None:
        return None
    stays = wish.outgoing.cancelled
    return ObservedMove(id=wish.outgoing.id, departed=not stays, stayed=stays)
