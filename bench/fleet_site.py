"""A whole control plane with a simulated fleet, on this machine: what ``bench/fleet.py`` measures.

PostgreSQL (a cluster of its own on a Unix socket) or SQLite, ``virtmgr serve`` with its processes,
and ``virtmgr sim``, all on loopback and in a temporary directory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fixtures.control_plane import Client, Server, new_control_plane, reachable
from tests.fixtures.postgresql import running_server
from virtmgr.bootstrap.processes import environment

_VIRTMGR = "from virtmgr.cli.main import main; main()"
AS_IN_PRODUCTION = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
}
_PATIENCE = 900.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Site:
    """A control plane that runs; ``hosts`` of the simulated fleet may be let live."""

    server: Server
    directory: Path
    serve: subprocess.Popen[bytes]
    database: int | None  # process id of PostgreSQL's first process
    fleet: subprocess.Popen[bytes] | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def report(self) -> Path:
        return self.directory / "sim.jsonl"

    def client(self) -> Client:
        return Client(self.server)

    # -- the fleet ---------------------------------------------------------------------------

    def prepare(self, hosts: int) -> float:
        """Enrol simulated hosts; how many seconds that took."""
        began = time.monotonic()
        self._virtmgr("sim", "prepare", "--fleet", str(self.directory / "fleet"), "--hosts",
                      str(hosts)).wait()  # fmt: skip
        return time.monotonic() - began

    def start_fleet(self, hosts: int, *options: str, ramp: float = 10.0) -> None:
        self.report.unlink(missing_ok=True)
        fleet = str(self.directory / "fleet")
        self.fleet = self._virtmgr(
            *("sim", "run", "--fleet", fleet, "--hosts", str(hosts), "--report", str(self.report)),
            *("--every", "2", "--ramp", str(ramp), *options),
        )

    def tell_fleet(self, line: str) -> None:
        """A command for the simulated fleet."""
        assert self.fleet is not None
        assert self.fleet.stdin is not None
        self.fleet.stdin.write(f"{line}\n".encode())
        self.fleet.stdin.flush()

    def stop_fleet(self) -> None:
        if self.fleet is not None:
            self.fleet.terminate()
            self.fleet.wait(60)
            self.fleet = None

    def reports(self) -> list[dict[str, Any]]:
        """What the fleet has said up to now."""
        if not self.report.exists():
            return []
        return [json.loads(line) for line in self.report.read_text().splitlines()]

    def wait_settled(self, times: int = 1, patience: float = _PATIENCE) -> float:
        """Wait until all hosts have synced for the ``times``-th time; the seconds of the last."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            found = [one["settled_seconds"] for one in self.reports() if "settled_seconds" in one]
            if len(found) >= times:
                return float(found[times - 1])
            time.sleep(0.2)
        last = [one for one in self.reports() if "synced" in one][-1:]
        raise RuntimeError(f"the fleet has not settled: {last}")

    def _virtmgr(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _VIRTMGR, *arguments],
            env={**os.environ, **environment(self.server.settings)},
            stdin=subprocess.PIPE,
            stdout=(self.directory / "sim.log").open("ab"),
        )

    # -- what it costs -----------------------------------------------------------------------

    def processes(self) -> dict[str, list[int]]:
        """Process ids by part."""
        found: dict[str, list[int]] = {"web": [], "worker": [], "hub": [], "supervisor": []}
        for pid in tree(self.serve.pid):
            name = re.search(r"virtmgr\.bootstrap\.(\w+)", _command(pid))
            found.setdefault(name[1] if name else "supervisor", []).append(pid)
        found["PostgreSQL"] = tree(self.database) if self.database is not None else []
        found["simulated fleet"] = tree(self.fleet.pid) if self.fleet is not None else []
        return found

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each part has used up to now."""
        return {part: sum(map(cpu_of, pids)) for part, pids in self.processes().items()}

    def memory(self) -> dict[str, float]:
        """Megabytes (PSS) of each part."""
        return {part: sum(map(_pss, pids)) for part, pids in self.processes().items()}

    def cores(self, seconds: float) -> dict[str, float]:
        """How much of a CPU each part uses, on average over ``seconds``."""
        before, began = self.cpu(), time.monotonic()
        time.sleep(seconds)
        after, passed = self.cpu(), time.monotonic() - began
        return {part: (after[part] - before.get(part, 0.0)) / passed for part in after}


@contextmanager
def site(*, postgresql: bool, hosts: int, web_processes: int = 1) -> Iterator[Site]:
    """A control plane with a prepared fleet of ``hosts``, all of it gone at the end."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virtmgr-fleet-")))
        database, url = None, ""
        if postgresql:
            cluster = stack.enter_context(running_server(AS_IN_PRODUCTION))
            url = cluster.url(cluster.create_database())
            first = (cluster.socket_directory / "data/postmaster.pid").read_text()
            database = int(first.splitlines()[0])
        server = new_control_plane(directory, url)
        server = replace(server, settings=replace(server.settings, web_processes=web_processes))
        log = stack.enter_context(server.log.open("ab"))
        serve = subprocess.Popen(
            [sys.executable, "-c", _VIRTMGR, "serve"],
            env={**os.environ, **environment(server.settings)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        made = Site(server, directory, serve, database)
        stack.callback(_stop, serve)
        stack.callback(made.stop_fleet)
        deadline = time.monotonic() + _PATIENCE
        while not reachable(server, server.settings.listen):
            if time.monotonic() > deadline or serve.poll() is not None:
                raise RuntimeError(f"it does not answer: {server.log.read_text()}")
            time.sleep(0.2)
        made.prepare(hosts)
        yield made


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tree(pid: int) -> list[int]:
    """A process with all that come from it."""
    found = [pid]
    for parent in found:
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            for task in tasks:
                found += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _pss(pid: int) -> float:
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0
