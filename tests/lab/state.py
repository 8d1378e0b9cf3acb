"""What the lab remembers of itself: one SQLite file in its directory.

Hosts and the faults that were asked for. What is really there is asked of the kernel: a process is
known by its id and start time, so a record that a crash or a reboot left behind is seen to be old.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from tests.lab.kernel import LabError, Process
from tests.lab.plan import Flavour, HostPlan, Release

_WAIT_SECONDS = 120
_TABLES = (
    "CREATE TABLE IF NOT EXISTS hosts (number INTEGER PRIMARY KEY, release TEXT, flavour TEXT,"
    " pid INTEGER, started INTEGER, delay REAL, loss REAL, cut_from TEXT)",
    "CREATE TABLE IF NOT EXISTS processes (name TEXT PRIMARY KEY, pid INTEGER, started INTEGER)",
)


@dataclass(frozen=True)
class HostState:
    """A host: what it is, its first process while it has power, and the faults it has.

    ``delay`` is in seconds and each way; ``loss`` is a share of the frames, each way; ``cut_from``
    names hosts, ``control``, or ``*`` for everything.
    """

    number: int
    release: str
    flavour: str
    pid: int = 0
    started: int = 0
    delay: float = 0.0
    loss: float = 0.0
    cut_from: tuple[str, ...] = ()

    @property
    def process(self) -> Process:
        """Its first process; not alive when it has no power."""
        return Process(self.pid, self.started)

    @property
    def plan(self) -> HostPlan:
        return HostPlan(self.number, Release(self.release), Flavour(self.flavour))


class LabState:
    """The state in ``path``; made when it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def change(self) -> Iterator[Changes]:
        """Look and change, alone: whoever else wants to change waits until this ends.

        :raises LabError: there is no lab.
        """
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                connection.execute(table)
            try:
                yield Changes(connection)
            finally:
                # What was done so far was done, whatever came after it.
                connection.execute("COMMIT")

    def hosts(self) -> tuple[HostState, ...]:
        """As they were at the last change; none when there is no lab."""
        if not self._path.exists():
            return ()
        with self._open() as connection:
            return _hosts(connection) if _is_made(connection) else ()

    def process(self, name: str) -> Process | None:
        """What was noted as a process of the lab itself; it may be dead by now."""
        if not self._path.exists():
            return None
        with self._open() as connection:
            return _process(connection, name) if _is_made(connection) else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self._path.parent.is_dir():
            raise LabError(f"there is no lab in {self._path.parent}: bring it up")
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()


class Changes:
    """The state while one process changes it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def hosts(self) -> tuple[HostState, ...]:
        return _hosts(self._connection)

    def host(self, name: str) -> HostState:
        """:raises LabError: no host has that name."""
        for host in self.hosts():
            if host.plan.name == name:
                return host
        raise LabError(f"the lab has no host {name!r}")

    def save(self, host: HostState) -> None:
        values = (*astuple(host)[:-1], json.dumps(host.cut_from))
        marks = ", ".join("?" * len(fields(host)))
        self._connection.execute(f"INSERT OR REPLACE INTO hosts VALUES ({marks})", values)

    def process(self, name: str) -> Process | None:
        """What was noted as a process of the lab itself; it may be dead by now."""
        return _process(self._connection, name)

    def note_process(self, name: str, process: Process) -> None:
        values = (name, process.pid, process.started)
        self._connection.execute("INSERT OR REPLACE INTO processes VALUES (?, ?, ?)", values)


def _hosts(connection: sqlite3.Connection) -> tuple[HostState, ...]:
    rows = connection.execute("SELECT * FROM hosts ORDER BY number")
    return tuple(replace(HostState(*row[:-1]), cut_from=tuple(json.loads(row[-1]))) for row in rows)


def _process(connection: sqlite3.Connection, name: str) -> Process | None:
    found = connection.execute("SELECT pid, started FROM processes WHERE name = ?", (name,))
    row = found.fetchone()
    return None if row is None else Process(*row)


def _is_made(connection: sqlite3.Connection) -> bool:
    """Whether the first change got to its end."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
    return bool(found.fetchone()[0])
