"""Live migration of imaginary guests: a guest goes through the door of its state as JSON."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread

from virtmgr.domain.errors import DriverError
from virtmgr.domain.sync import DesiredWorkload, MigrationLimits
from virtmgr.domain.workload import PowerState, Reason
from virtmgr.drivers.fake.world import FakeWorld, Guest
from virtmgr.ports.driver import (
    Departure,
    Door,
    JobProgress,
    MigrationWatch,
    Papers,
    Passage,
    Provision,
    RuntimeState,
)

_LIVE = (RuntimeState.RUNNING, RuntimeState.PAUSED)
_HERE = b"here"


class Migrates:
    """``CanMigrate`` for the fake driver. A script's delay of ``depart`` can be cancelled."""

    world: FakeWorld

    def receive(self, workload: DesiredWorkload, provision: Provision) -> None:
        del provision
        with self.world.verb("receive", workload.id):
            """There is nothing to be made of an imaginary guest."""

    def papers(self, workload_id: str, passage: Passage) -> Papers:
        del passage
        return Papers({"name": self._alive(workload_id).workload.get("name")})

    def admit(self, workload: DesiredWorkload, papers: Papers, passage: Passage) -> None:
        del papers, passage
        with self.world.verb("admit", workload.id):
            """Any guest may come."""

    def open_passage(self, passage: Passage) -> None:
        passage.directory.mkdir(parents=True, exist_ok=True)

    def enter(self, workload: DesiredWorkload, passage: Passage, door: Door) -> socket.socket:
        del passage, door
        inside, outside = socket.socketpair()
        Thread(target=self._take_in, args=(inside, workload.id), daemon=True).start()
        return outside

    def grant(self, socket_path: Path) -> None:
        del socket_path

    def depart(
        self,
        workload_id: str,
        passage: Passage,
        limits: MigrationLimits,
        watch: MigrationWatch,
    ) -> Departure:
        del limits
        self.world.script.play("depart_fails", workload_id)
        until = time.monotonic() + self.world.script.delays.get("depart_slowly", 0.0)
        while time.monotonic() < until:
            if watch.cancelled():
                return Departure(False, Reason(code="cancelled", message="it was cancelled"))
            watch.progress(JobProgress(0.5, 1))
            time.sleep(0.01)
        if not _send(passage.door(Door.STATE), self._alive(workload_id)):
            broke = Reason(code="migration_failed", message="the way to the target broke")
            return Departure(False, broke)
        with self.world.verb("depart", workload_id):
            gone = replace(
                self._alive(workload_id), state=RuntimeState.EXITED, exit_code=0, departed=True
            )
            self.world.put(workload_id, gone)
        return Departure(True)

    def settle(self, workload_id: str) -> Departure:
        with self.world.verb("settle", workload_id):
            guest = self.world.guest(workload_id)
        if guest is not None and guest.departed:
            return Departure(True)
        return Departure(False, Reason(code="migration_failed", message="it was interrupted"))

    def take_over(self, workload: DesiredWorkload) -> None:
        with self.world.verb("take_over", workload.id):
            guest = self._alive(workload.id)
            if workload.state is not PowerState.PAUSED:
                self.world.put(workload.id, replace(guest, state=RuntimeState.RUNNING))

    def _alive(self, workload_id: str) -> Guest:
        guest = self.world.guest(workload_id)
        if guest is None or guest.state not in _LIVE:
            raise DriverError(f"workload {workload_id} does not run here", code="not_running")
        return guest

    def _take_in(self, inside: socket.socket, workload_id: str) -> None:
        with inside, suppress(OSError):
            came = b""
            while piece := inside.recv(65536):
                came += piece
            if came:
                found = json.loads(came)
                guest = Guest(**{**found, "state": RuntimeState.PAUSED})
                with self.world.verb("came", workload_id):
                    self.world.put(workload_id, guest)
                inside.sendall(_HERE)


def _send(door: Path, guest: Guest) -> bool:
    """Whether all of the guest is there."""
    with socket.socket(socket.AF_UNIX) as way:
        try:
            way.connect(str(door))
            way.sendall(json.dumps(asdict(guest)).encode())
            way.shutdown(socket.SHUT_WR)
            return way.recv(16) == _HERE
        except OSError:
            return False
