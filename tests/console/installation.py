"""A whole control plane with hosts whose agents are real and whose workloads are imaginary.

python -m tests.console.installation [--empty]    (to look at: prints address and token)
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.console.busy import BusyDriver
from tests.fixtures.control_plane import Client, Server, add_images, new_control_plane
from tests.fixtures.enrolled_host import enrol_another_machine
from tests.scaleout.client import wait_until
from tests.scaleout.fleet import FakeHost
from tests.scaleout.plane import Plane
from virtmgr.domain.host import HostState
from virtmgr.drivers.fake.driver import FakeDriver
from virtmgr.drivers.fake.world import FakeWorld

PASSWORD = "correct horse battery staple"


@dataclass
class Installation:
    """``plane`` runs; ``client`` is its API as the administrator, whose password is PASSWORD."""

    plane: Plane
    client: Client
    hosts: list[FakeHost]

    @property
    def server(self) -> Server:
        return self.plane.server

    @property
    def url(self) -> str:
        return f"https://{self.server.settings.listen}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The document of an answer that is no refusal."""
        self.client.close()  # it opens a new connection: the server ends what is idle for long
        reply = self.client.call(method, path, body)
        assert reply.status < 400, reply.body
        return reply.body

    def restart(self) -> None:
        """Start the control plane anew after ``plane.stop()``; it answers afterwards."""
        self.plane.start()
        wait_until(lambda: _answers(self.server))


@contextmanager
def installation(
    directory: Path, *, hosts: int = 3, driver: Callable[[FakeWorld], FakeDriver] = FakeDriver
) -> Iterator[Installation]:
    """Running until the block ends; with images, and nothing else."""
    with ExitStack() as stack:
        server = new_control_plane(directory / "plane")
        with server.inventory() as uow:
            add_images(uow)
        plane = Plane(server)
        stack.callback(plane.stop)
        plane.start()
        client = Client(server)
        stack.callback(client.close)
        wait_until(lambda: _answers(server))
        found = Installation(plane, client, [])
        found.call("PUT", "/users/admin/password", {"password": PASSWORD})
        for number in range(1, hosts + 1):
            own = directory / f"host{number}"
            identity, machine = enrol_another_machine(server, own, own.name)
            found.hosts.append(stack.enter_context(FakeHost(identity, machine, own, driver)))
        wait_until(lambda: _ready(server) == hosts)
        yield found


def _answers(server: Server) -> bool:
    client = Client(server)
    try:
        return client.call("GET", "/health").status == 200
    except OSError:
        return False
    finally:
        client.close()


def _ready(server: Server) -> int:
    with server.inventory() as uow:
        return sum(host.state is HostState.READY for host in uow.hosts.all())


def populate(found: Installation) -> None:
    """A little of everything: projects, users, networks, volumes, workloads of each kind."""
    for name in ("shop", "lab"):
        found.call("POST", "/projects", {"name": name, "description": f"The {name}'s things"})
    found.call(
        "PATCH",
        "/projects/shop/quota",
        {"limit_vcpus": 16, "limit_memory": "32GiB", "limit_workloads": 20},
    )
    found.call("POST", "/users", {"name": "maria", "display_name": "Maria Lopez"})
    found.call("POST", "/role-bindings", {"user": "maria", "role": "member", "project": "shop"})
    found.call(
        "POST",
        "/projects/shop/networks",
        {"name": "backend", "type": "overlay", "ipv4": "10.90.0.0/24"},
    )
    found.call("POST", "/projects/shop/volumes", {"name": "orders", "size": "20GiB"})
    for number in range(1, 5):
        found.call("POST", "/projects/shop/workloads", _container(f"web-{number}", "app"))
    for name in ("build", "ci"):
        found.call("POST", "/projects/lab/workloads", _container(name, "system"))
    found.call("POST", "/projects/shop/workloads", {"name": "db", "kind": "vm", "image": "debian"})
    found.call(
        "POST", "/projects/lab/workloads", {"name": "windows", "kind": "vm", "image": "debian"}
    )


def _container(name: str, init: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "container",
        "init": init,
        "image": "busybox",
        "labels": {"tier": name.split("-")[0]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--empty", action="store_true", help="no hosts, nothing in it")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())  # so that what was started is stopped
    with (
        tempfile.TemporaryDirectory(prefix="virtmgr-console-") as directory,
        installation(Path(directory), hosts=0 if options.empty else 3, driver=BusyDriver) as found,
    ):
        if not options.empty:
            populate(found)
        print(f"{found.url}\nadmin / {PASSWORD}\n{found.server.token}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
