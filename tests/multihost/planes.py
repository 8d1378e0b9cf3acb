"""Three whole control planes of one PostgreSQL on the lab's network, behind a load balancer."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fixtures.postgresql import DURABLE, PostgresqlServer, running_server
from tests.lab.fleet import Lab
from tests.lab.plan import CONTROL_ADDRESS
from tests.multihost.fleet import ROOT, VIRTMGR, Fleet
from virtmgr.cli.problems import Exit

_PORTS = (7443, 7444, 7445)
_PATIENCE = 1000.0  # seconds for one command, however many control planes die meanwhile


class PatientFleet(Fleet):
    """The product, by somebody who says again what was not answered."""

    def run(
        self, *words: str, check: bool = True, timeout: float = _PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        deadline = time.monotonic() + timeout
        again = False
        while True:
            done = super().run(*words, check=False, timeout=timeout)
            if done.returncode == 0 or not check:
                return done
            if again and re.search("already|is taken", done.stderr):
                return done  # it was taken in, and the answer was lost
            assert done.returncode == Exit.UNREACHABLE, f"virtmgr {words}: {done.stderr}"
            assert time.monotonic() < deadline, f"virtmgr {words} is not answered: {done.stderr}"
            again = True
            time.sleep(0.5)


@dataclass
class Plane:
    """One ``virtmgr serve`` with its processes, as on a machine of its own."""

    lab: Lab
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.lab.attached(str(VIRTMGR), "serve"), env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def answers(self) -> bool:
        """Whether its API listens."""
        host, _, port = self.environment["VIRTMGR_LISTEN"].rpartition(":")
        code = f"import socket; socket.create_connection(({host!r}, {port}), 5)"
        return self.lab.run(sys.executable, "-c", code, check=False).returncode == 0

    def defects(self) -> list[str]:
        """What its log has with a traceback."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with suppress(ValueError, KeyError):  # half a line of one that was killed; no traceback
                entry = json.loads(line)
                found.append(f"{entry['timestamp']} {entry['event']}\n{entry['exception']}")
        return found

    def kill(self) -> None:
        """As its machine would by losing power: nothing ends in order."""
        mine = f"VIRTMGR_DATA_DIRECTORY={self.environment['VIRTMGR_DATA_DIRECTORY']}\0"
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mine in (path / "environ").read_bytes().decode(errors="replace"):
                    os.kill(int(path.name), signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


@dataclass
class Planes:
    """All of them, what they share, and the fleet as its clients see it."""

    fleet: PatientFleet
    planes: list[Plane]
    database: PostgresqlServer


@contextmanager
def three_planes(lab: Lab) -> Iterator[Planes]:
    """Control planes with nothing in them; hosts that joined are as new when they have gone."""
    base = lab.site.directory / "control"
    base.mkdir()
    client = {
        **os.environ,
        "XDG_CONFIG_HOME": f"{base}/client",
        "VIRTMGR_DATA_DIRECTORY": f"{base}/shared",  # where the CA is
        "VIRTMGR_PROJECT": "default",
    }
    fleet = PatientFleet(lab, client)
    with ExitStack() as stack:
        database = stack.enter_context(running_server(DURABLE))
        stack.callback(shutil.rmtree, base)
        stack.callback(_reinstall, fleet)
        url = database.url(database.create_database())
        planes = [
            Plane(lab, {**client, **_settings(base, number, url)}, base / f"serve{number}.log")
            for number in (1, 2, 3)
        ]
        PatientFleet(lab, planes[0].environment).run("init")
        stack.enter_context(_balancer(lab, base))
        for plane in planes:
            stack.callback(plane.kill)
            plane.start()
        fleet.run("project", "list")
        try:
            yield Planes(fleet, planes, database)
        except BaseException:  # the logs are about to go
            for plane in planes:
                print(plane.log.stem, *plane.defects(), sep="\n", flush=True)
            raise


def _settings(base: Path, number: int, url: str) -> dict[str, str]:
    here = f"127.0.0.{1 + number}"
    return {
        "VIRTMGR_DATA_DIRECTORY": f"{base}/plane{number}",
        "VIRTMGR_RUN_DIRECTORY": f"{base}/run{number}",
        "VIRTMGR_SHARED_DIRECTORY": f"{base}/shared",
        "VIRTMGR_BUILD_CACHE": str(ROOT / ".cache/build"),
        "VIRTMGR_DATABASE": url,
        "VIRTMGR_ADDRESS": CONTROL_ADDRESS,
        "VIRTMGR_LISTEN": f"{here}:7443",
        "VIRTMGR_AGENT_LISTEN": f"{here}:7444",
        "VIRTMGR_STREAM_LISTEN": f"{here}:7445",
    }


def _reinstall(fleet: Fleet) -> None:
    for name in fleet.joined:
        fleet.lab.host(name).reinstall()


@contextmanager
def _balancer(lab: Lab, base: Path) -> Iterator[None]:
    routes = [
        f"{CONTROL_ADDRESS}:{port}="
        + ",".join(f"127.0.0.{1 + number}:{port}" for number in (1, 2, 3))
        for port in _PORTS
    ]
    with (
        (base / "balancer.log").open("w") as log,
        subprocess.Popen(
            lab.attached(sys.executable, "-m", "tests.scaleout.balancer", *routes),
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        ) as balancer,
    ):  # fmt: skip
        try:
            yield
        finally:
            balancer.terminate()


@dataclass
class Disturber:
    """Kills a control plane at random moments, when all are up; the database, too, once that is
    asked for."""

    planes: Planes
    dice: random.Random
    kills: int = 0
    crashed: threading.Event = field(default_factory=threading.Event)
    crash_now: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Disturber:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(self.dice.uniform(2, 10)):
                if all(plane.answers() for plane in self.planes.planes):
                    self._once()
        except BaseException as error:
            self.failure = error
            raise

    def _once(self) -> None:
        victim = self.dice.choice(self.planes.planes)
        print(f"{time.time():.1f} kill -9 of {victim.log.stem}", flush=True)
        victim.kill()
        self.kills += 1
        if self.crash_now.is_set() and not self.crashed.is_set():
            print(f"{time.time():.1f} PostgreSQL dies, and comes back", flush=True)
            self.planes.database.crash_and_start(2.0)
            self.crashed.set()
        time.sleep(self.dice.uniform(0, 3))
        victim.start()
