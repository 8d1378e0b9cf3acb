"""``CanMigrate`` for the libvirt driver: what the two hosts of a live migration do."""

from __future__ import annotations

import socket
from pathlib import Path
from xml.etree import ElementTree

from virtmgr.domain.errors import DriverError
from virtmgr.domain.sync import DesiredWorkload, MigrationLimits
from virtmgr.domain.workload import PowerState
from virtmgr.drivers.libvirt import disks, migrating, papers, power, run
from virtmgr.drivers.libvirt.accelerator import Accelerator
from virtmgr.drivers.libvirt.connection import Connection
from virtmgr.drivers.libvirt.domains import Domains
from virtmgr.drivers.libvirt.errors import attempt
from virtmgr.drivers.libvirt.implied import Words, words
from virtmgr.drivers.libvirt.layout import Layouts
from virtmgr.drivers.libvirt.locks import Locks
from virtmgr.drivers.libvirt.making import Maker
from virtmgr.ports.driver import (
    Departure,
    Door,
    MigrationWatch,
    Papers,
    Passage,
    Provision,
)


class Migrates:
    """A part of ``LibvirtDriver``, which has these."""

    _accelerator: Accelerator
    _connection: Connection
    _domains: Domains
    _layouts: Layouts
    _maker: Maker
    _runs: Locks

    def destroy(self, workload_id: str) -> None:
        raise NotImplementedError

    def receive(self, workload: DesiredWorkload, provision: Provision) -> None:
        domain = self._domains.find(workload.id)
        if domain is not None and power.is_active(domain):
            return
        # An overlay of before would show through where the new one has nothing.
        self.destroy(workload.id)
        self._maker.make_files(workload, provision)

    def papers(self, workload_id: str, passage: Passage) -> Papers:
        domain = self._domains.require_running(workload_id)
        layout, owner = self._layouts.of(workload_id), self._maker.owner()
        has_disk = layout.root_disk.exists()
        ran = run.load(layout.run)
        with attempt(f"describe VM {workload_id}"):
            described = papers.write(self._connection.get(), domain)
        facts = {
            **described,
            "places": self._places(passage),
            "owner": owner.label if owner is not None else None,
            "root_size": disks.virtual_size(layout.root_disk) if has_disk else 0,
            "run": ran.model_dump(mode="json") if ran is not None else None,
        }
        return Papers(facts)

    def admit(self, workload: DesiredWorkload, papers_: Papers, passage: Passage) -> None:
        facts, owner, layout = papers_.facts, self._maker.owner(), self._layouts.of(workload.id)
        label = owner.label if owner is not None else None
        if facts.get("places") != self._places(passage) or facts.get("owner") != label:
            raise DriverError(
                f"cannot take VM {workload.name} in: the two hosts keep VMs in other places, or "
                "their QEMU runs as other users",
                code="hosts_differ",
                hint="give both agents the same --data-directory and --run-directory, or move it "
                "with --cold",
            )
        papers.check(self._connection.get(), workload.name, facts)
        size = int(facts.get("root_size") or 0)
        if size > 0 and layout.root_disk.exists():
            disks.grow(layout.root_disk, size)
        if facts.get("run") is not None:
            with self._runs.hold(workload.id):
                run.save(layout.run, run.taken_over(run.Run.read_from(facts["run"])))
        self.open_passage(passage)

    def _places(self, passage: Passage) -> dict[str, str]:
        return {"state": str(self._layouts.root), "passage": str(passage.directory)}

    def open_passage(self, passage: Passage) -> None:
        migrating.open_passage(passage, self._maker.owner())

    def enter(self, workload: DesiredWorkload, passage: Passage, door: Door) -> socket.socket:
        return migrating.enter(
            passage, door, self._layouts.of(workload.id).expected, lambda: self._words(workload)
        )

    def _words(self, workload: DesiredWorkload) -> Words:
        connection, is_kvm = self._connection.get(), self._accelerator.name == "kvm"
        with attempt(f"see which CPUs VM {workload.name} could have here"):
            return words(
                connection.getVersion(),
                ElementTree.fromstring(connection.getCapabilities()),
                ElementTree.fromstring(
                    connection.getDomainCapabilities(None, None, "q35", "kvm" if is_kvm else "qemu")
                ),
                is_kvm=is_kvm,
            )

    def grant(self, socket_path: Path) -> None:
        migrating.give(socket_path, self._maker.owner())

    def depart(
        self,
        workload_id: str,
        passage: Passage,
        limits: MigrationLimits,
        watch: MigrationWatch,
    ) -> Departure:
        domain = self._domains.require_running(workload_id)
        return migrating.depart(domain, workload_id, passage, limits, watch)

    def settle(self, workload_id: str) -> Departure:
        return migrating.settle(self._domains.require(workload_id), workload_id)

    def take_over(self, workload: DesiredWorkload) -> None:
        domain = self._domains.require(workload.id)
        run_it = workload.state is not PowerState.PAUSED
        migrating.take_over(domain, workload.id, run=run_it)
        self._layouts.of(workload.id).expected.unlink(missing_ok=True)
