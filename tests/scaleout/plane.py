"""Several whole control planes of one database, behind a load balancer; each may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tests.fixtures.control_plane import Server, add_images, new_control_plane, reachable
from tests.fixtures.enrolled_host import enrol_another_machine
from tests.fixtures.postgresql import DURABLE, PostgresqlServer, running_server
from tests.scaleout.balancer import Balancer
from tests.scaleout.client import wait_until
from tests.scaleout.fleet import FakeHost
from virtmgr.bootstrap.processes import environment
from virtmgr.domain.host import HostState
from virtmgr.store.engine import make_engine

_SERVE = "from virtmgr.cli.main import main; main()"


@dataclass
class Plane:
    """One ``virtmgr serve`` with its processes, as on a machine of its own."""

    server: Server
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.server.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, "serve"],
                env={**os.environ, **environment(self.server.settings)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """As the machine would by losing power: nothing ends in order."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()  # the kernel kills its children with it

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.process.kill()
        self.process.wait()


@dataclass
class Installation:
    """All of it: ``api`` is what clients use, ``planes`` what stands behind it."""

    database: PostgresqlServer
    planes: list[Plane]
    api: Server  # whose listeners are the load balancer's
    hosts: list[FakeHost] = field(default_factory=list)

    def leader(self) -> str:
        """Who leads, as its lease has it."""
        engine = make_engine(self.api.settings.database)
        with engine.connect() as connection:
            holder = connection.exec_driver_sql("SELECT holder FROM leaderships").scalar()
        engine.dispose()
        return str(holder)


@contextmanager
def installation(
    directory: Path, *, planes: int = 3, hosts: int = 2, web_processes: int = 1
) -> Iterator[Installation]:
    """Control planes and enrolled hosts on a PostgreSQL of their own, all running.

    :param web_processes: of the first control plane.
    """
    with ExitStack() as stack:
        database = stack.enter_context(running_server(DURABLE))
        name = database.create_database()
        shared = directory / "shared"
        first = new_control_plane(directory / "plane1", database.url(name), shared=shared)
        with first.inventory() as uow:
            add_images(uow)
        several = replace(first.settings, web_processes=web_processes)
        made = [Plane(replace(first, settings=several))]
        for number in range(2, planes + 1):
            one = first.beside()
            own = directory / f"plane{number}"
            own.mkdir()
            settings = replace(one.settings, data_directory=own / "data", run_directory=own / "run")
            made.append(Plane(replace(one, settings=settings, log=own / "server.log")))
        balanced = {
            name: stack.enter_context(
                Balancer([getattr(plane.server.settings, name) for plane in made])
            ).endpoint
            for name in ("listen", "agent_listen", "stream_listen")
        }
        api = replace(first, settings=replace(first.settings, **balanced))
        found = Installation(database, made, api)
        for plane in made:
            stack.callback(plane.stop)
            plane.start()
        _wait_for(found)
        for number in range(1, hosts + 1):
            own = directory / f"host{number}"
            identity, machine = enrol_another_machine(api, own, own.name)
            host = FakeHost(identity, machine, own)
            found.hosts.append(stack.enter_context(host))
        wait_until(lambda: _ready_hosts(api) == hosts)
        yield found


def _ready_hosts(server: Server) -> int:
    with server.inventory() as uow:
        return sum(host.state is HostState.READY for host in uow.hosts.all())


def _wait_for(installation: Installation) -> None:
    for plane in installation.planes:
        settings = plane.server.settings
        for endpoint in (settings.listen, settings.stream_listen):
            wait_until(partial(reachable, plane.server, endpoint), 600)
