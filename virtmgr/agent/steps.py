"""Carrying out one step for one workload. No choices are made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from virtmgr.agent import moving
from virtmgr.agent.files import Entry
from virtmgr.agent.images import ImageKeeper
from virtmgr.agent.migrating import mover
from virtmgr.agent.networks import NetworkKeeper
from virtmgr.domain.errors import Unsupported
from virtmgr.domain.plan import Step
from virtmgr.domain.sync import DesiredImage, DesiredWorkload
from virtmgr.domain.values import format_bytes
from virtmgr.domain.workload import Kind
from virtmgr.ports.driver import (
    CanClone,
    CanMove,
    Inspection,
    LocalImage,
    Provision,
    RuntimeState,
    WorkloadDriver,
)
from virtmgr.ports.host import HostStorage

Tell = Callable[[str], None]
"""Called with what is being done, for people."""


class StepRunner:
    """Drivers, storage and network of one host."""

    def __init__(
        self,
        drivers: Mapping[Kind, WorkloadDriver],
        storage: HostStorage,
        networks: NetworkKeeper,
        images: ImageKeeper,
    ) -> None:
        self.drivers = drivers
        self._storage = storage
        self._networks = networks
        self._images = images

    def driver(self, workload: DesiredWorkload) -> WorkloadDriver:
        """The driver that runs workloads of this kind here.

        :raises Unsupported: this host has none.
        """
        driver = self.drivers.get(workload.kind)
        if driver is None:
            raise Unsupported(
                f"this host has no driver for workloads of kind {workload.kind.value}",
                hint="see the host's drivers with 'virtmgr host show'",
            )
        return driver

    def inspect(self, workload: DesiredWorkload) -> Inspection:
        return self.driver(workload).inspect(workload.id)

    def run(self, step: Step, entry: Entry, tell: Tell) -> tuple[str, ...]:
        """Carry out ``step``; the changed fields of the spec that wait for a restart.

        :raises HostError: it failed; it may be repeated.
        """
        workload = entry.desired
        driver = self.driver(workload)
        match step:
            case Step.PREPARE:
                driver.prepare(workload, self._provision(entry, tell))
            case Step.CLONE:
                self._clone(driver, entry, tell)
            case Step.RECEIVE:
                self._receive(driver, entry, tell)
            case Step.ARRIVE:
                self._arrive(driver, entry, tell)
            case Step.START:
                provision = self._provision(entry, tell)
                self._networks.settle(_networks_of(workload))
                self._networks.check_ports(workload)
                driver.start(workload, provision)
            case Step.UPDATE:
                provision = self._provision(entry, tell)
                self._networks.settle(_networks_of(workload))
                return driver.update(workload, provision).needs_restart
            case Step.STOP:
                driver.stop(
                    workload.id,
                    timeout=float(workload.spec.stop_timeout),
                    force=workload.force_stop,
                )
            case Step.PAUSE:
                driver.pause(workload.id)
            case Step.RESUME:
                driver.resume(workload.id)
            case Step.DESTROY:
                self._destroy(driver, workload)
            case Step.SETTLE | Step.DEPART | Step.FORGET:
                pass
        return ()

    def _receive(self, driver: WorkloadDriver, entry: Entry, tell: Tell) -> None:
        """Make what a guest comes to. Volumes of before would show through where its have holes."""
        workload = entry.desired
        migrator = mover(driver, workload)
        alive = driver.inspect(workload.id).state in (RuntimeState.RUNNING, RuntimeState.PAUSED)
        if not alive:
            for volume in workload.volumes:
                self._storage.remove_volume(volume.id)
        provision = self._provision(entry, tell)
        self._networks.settle(_networks_of(workload))
        migrator.receive(workload, provision)

    def _clone(self, driver: WorkloadDriver, entry: Entry, tell: Tell) -> None:
        workload, source = entry.desired, entry.desired.clone_of
        if source is None or not isinstance(driver, CanClone):
            raise Unsupported(
                f"the driver {driver.name} of this host cannot clone workload {workload.name}",
                hint="see the host's drivers with 'virtmgr host show'",
            )
        tell(f"copying the disks of {source.name}")
        for volume in workload.volumes:
            if volume.copy_of is not None:
                self._storage.copy_volume(volume.copy_of, volume.id)
        driver.clone(source.id, workload, self._provision(entry, tell))

    def _arrive(self, driver: WorkloadDriver, entry: Entry, tell: Tell) -> None:
        workload = entry.desired
        if workload.arrival is None:
            raise AssertionError("no arrival is to be taken up")
        if not isinstance(driver, CanMove):
            raise Unsupported(
                f"cannot take workload {workload.name!r} up from another host: driver "
                f"{driver.name} does not offer it",
                hint="see the host's drivers with 'virtmgr host show'",
            )
        tell("taking up what came from its old host")
        luggage = self._storage.arrival(workload.arrival.id)
        moving.take_up_volumes(self._storage, workload, luggage)
        driver.arrive(workload, self._provision(entry, tell), luggage)

    def _destroy(self, driver: WorkloadDriver, workload: DesiredWorkload) -> None:
        driver.destroy(workload.id)
        for nic in workload.nics:
            self._networks.remove_port(nic.id)

    def _provision(self, entry: Entry, tell: Tell) -> Provision:
        workload = entry.desired
        image = self._image(workload.image, tell)
        cdrom = self._image(workload.cdrom, tell)
        return Provision(
            image=image,
            cdrom=cdrom.disk if cdrom is not None else None,
            volumes={
                volume.id: self._storage.ensure_volume(volume.id, volume.size)
                for volume in workload.volumes
            },
            id_base=entry.id_base,
        )

    def _image(self, image: DesiredImage | None, tell: Tell) -> LocalImage | None:
        if image is None:
            return None
        return self._images.ensure(image, partial(_tell_fetch, tell, image.name))


def _networks_of(workload: DesiredWorkload) -> frozenset[str]:
    return frozenset(nic.network_id for nic in workload.nics)


def _tell_fetch(tell: Tell, name: str, done: int, total: int) -> None:
    share = f" {100 * done // total} %" if total else ""
    tell(f"fetching image {name}{share} ({format_bytes(done)})")
