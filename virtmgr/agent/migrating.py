"""Live migration between two agents: the source dials the target, with a ticket and its own
certificate, and everything that the runtimes say to each other goes through that.

No further port is opened, and runtimes need no keys of their own: they talk over Unix sockets that
the agents relay. docs/live-migration.md has the picture.
"""

from __future__ import annotations

import hmac
import json
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import AF_UNIX, SHUT_RDWR, socket
from typing import Any, Final, cast

import structlog
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection

from virtmgr.agent.relay import relay
from virtmgr.domain.errors import DriverError, InvalidRequest, NotFound, Unsupported, VirtmgrError
from virtmgr.domain.moving import ticket_hash
from virtmgr.domain.streaming import LARGEST_MESSAGE, Channel, StreamRequest, frame
from virtmgr.domain.sync import DesiredWorkload, Outgoing
from virtmgr.domain.workload import Reason
from virtmgr.ports.certificates import Peer, common_name
from virtmgr.ports.driver import (
    CanMigrate,
    Departure,
    Door,
    MigrationWatch,
    Papers,
    Passage,
    WorkloadDriver,
)

ACTION: Final = "migrate"
_PATH: Final = "/v1/streams"
_DIAL_SECONDS: Final = 10
_PAPERS, _TAKE_OVER = "papers", "take_over"

_log = structlog.get_logger()


def mover(driver: WorkloadDriver, workload: DesiredWorkload) -> CanMigrate:
    """The driver, as one that migrates.

    :raises Unsupported: it is none.
    """
    if not isinstance(driver, CanMigrate):
        raise Unsupported(
            f"cannot migrate workload {workload.name!r} while it runs: driver {driver.name} does "
            "not offer it",
            hint="move it with --cold",
        )
    return driver


class Passages:
    """Where the sockets of live migrations are: one directory for each, gone with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, migration_id: str) -> Passage:
        return Passage(self._directory / migration_id)

    def remove(self, migration_id: str) -> None:
        shutil.rmtree(self.of(migration_id).directory, ignore_errors=True)

    def sweep(self) -> None:
        """Remove all: called before any begins; relays do not outlive the agent."""
        shutil.rmtree(self._directory, ignore_errors=True)


# ---- the source's side


@dataclass(frozen=True)
class Way:
    """To the target's agent, for one migration."""

    outgoing: Outgoing
    workload_id: str
    context: Callable[[], ssl.SSLContext]

    def dial(self, what: str, **more: Any) -> ClientConnection:
        """A connection for ``what``: a door, papers or the take-over.

        :raises DriverError: the target does not answer, or somebody else does.
        """
        parameters = {"migration": self.outgoing.id, "ticket": self.outgoing.ticket, "what": what}
        request = StreamRequest(
            workload_id=self.workload_id, action=ACTION, parameters={**parameters, **more}
        )
        try:
            connection = connect(
                self.outgoing.target_url + _PATH,
                ssl=self.context(),
                max_size=LARGEST_MESSAGE,
                compression=None,
                open_timeout=_DIAL_SECONDS,
                proxy=None,
            ).__enter__()  # whoever is given it closes it
        except (OSError, WebSocketException) as error:
            raise _unreachable(error) from error
        try:
            _check_target(cast(Peer, connection.socket), self.outgoing)
            connection.send(request.model_dump_json())
        except VirtmgrError:
            connection.close()
            raise
        except ConnectionClosed as error:
            raise _unreachable(error) from error
        return connection

    def ask(self, what: str, **more: Any) -> None:
        """Ask the target for something, and wait until it is done.

        :raises DriverError: it is refused, or cannot be done.
        """
        connection = self.dial(what, **more)
        try:
            answer = connection.recv(timeout=60, decode=False)
        except (ConnectionClosed, TimeoutError) as error:
            raise _unreachable(error) from error
        finally:
            connection.close()
        problem = json.loads(answer[1:]) if answer[:1] == bytes((Channel.END,)) else {}
        if problem.get("exit_code") != 0:
            raise DriverError(
                str(problem.get("detail", "the target's agent answered nonsense")),
                code=str(problem.get("code", "migration_failed")),
                hint=problem.get("hint"),
            )


def _check_target(peer: Peer, outgoing: Outgoing) -> None:
    """Before the ticket is shown."""
    if common_name(peer) != outgoing.target_host_id:
        raise DriverError(
            "another host answers at the address of the migration's target",
            code="wrong_host",
            hint="see the addresses of both with 'virtmgr host list -o wide'",
        )


def _unreachable(error: Exception) -> DriverError:
    return DriverError(
        f"cannot reach the agent of the migration's target: {error}",
        code="target_unreachable",
        hint="hosts must reach each other's stream address (7446 by default): open it between "
        "them, or move with --cold",
    )


def depart(
    driver: CanMigrate,
    workload: DesiredWorkload,
    passage: Passage,
    way: Way,
    watch: MigrationWatch,
) -> Departure:
    """Let a guest go to the target; how that ended.

    :raises DriverError: that is not known.
    """
    try:
        way.ask(_PAPERS, papers=dict(driver.papers(workload.id, passage).facts))
        driver.open_passage(passage)
    except VirtmgrError as error:  # nothing was begun yet
        return Departure(
            departed=False,
            reason=Reason.of(error),
        )
    with _doors(driver, passage, way):
        return driver.depart(workload.id, passage, way.outgoing.limits, watch)


def hand_over(way: Way) -> None:
    """The guest has left, and that is on the disk: let the target run it, now.

    Where the target cannot be told, it learns of it from the control plane.
    """
    try:
        way.ask(_TAKE_OVER)
    except DriverError as error:
        _log.warning("migration.not_told", migration=way.outgoing.id, error=error.message)


@contextmanager
def _doors(driver: CanMigrate, passage: Passage, way: Way) -> Iterator[None]:
    """Listen where the ways begin; what connects is relayed to the target."""
    listeners: list[socket] = []
    relays: set[ClientConnection] = set()
    try:
        for door in Door:
            path = passage.door(door)
            path.unlink(missing_ok=True)
            listener = socket(AF_UNIX)
            listeners.append(listener)
            listener.bind(str(path))
            path.chmod(0o600)
            driver.grant(path)
            listener.listen()
            threading.Thread(
                target=_accept, args=(listener, partial(way.dial, door.value), relays),
                name=f"door-{door.value}", daemon=True,
            ).start()  # fmt: skip
        yield
    finally:
        for listener in listeners:
            with suppress(OSError):
                listener.shutdown(SHUT_RDWR)  # wakes the thread that waits in accept
            listener.close()
        for connection in list(relays):
            connection.close()


def _accept(
    listener: socket, dial: Callable[[], ClientConnection], relays: set[ClientConnection]
) -> None:
    while True:
        try:
            local, _ = listener.accept()
        except OSError:  # it was closed: the migration has ended
            return
        threading.Thread(
            target=_relay_one, args=(local, dial, relays), name="door", daemon=True
        ).start()


def _relay_one(
    local: socket, dial: Callable[[], ClientConnection], relays: set[ClientConnection]
) -> None:
    try:
        connection = dial()
    except VirtmgrError as error:
        _log.warning("migration.no_way", error=error.message)
        local.close()
        return
    relays.add(connection)
    try:
        relay(connection, local, sends=Channel.STDIN, receives=Channel.STDOUT)
    finally:
        relays.discard(connection)


# ---- the target's side


class Receiver:
    """Serves the source of a migration that is desired here; nobody else."""

    def __init__(
        self,
        find: Callable[[str], tuple[WorkloadDriver, DesiredWorkload] | None],
        take_over: Callable[[DesiredWorkload], None],
        passages: Passages,
    ) -> None:
        """Make a receiver.

        :param find: a workload that is desired here, and its driver.
        :param take_over: lets a guest run that the source has let go of, and keeps that.
        """
        self._find = find
        self._take_over = take_over
        self._passages = passages

    def serve(self, connection: ServerConnection, request: StreamRequest) -> None:
        """Serve one connection to its end.

        :raises VirtmgrError: it is refused, or cannot be done.
        """
        driver, workload = self._admitted(cast(Peer, connection.socket), request)
        passage = self._passages.of(str(request.parameters["migration"]))
        what = request.parameters.get("what")
        if what == _PAPERS:
            papers = Papers(dict(request.parameters.get("papers") or {}))
            driver.admit(workload, papers, passage)
            _done(connection)
        elif what == _TAKE_OVER:
            self._take_over(workload)
            self._passages.remove(str(request.parameters["migration"]))
            _done(connection)
        elif what in set(Door):
            inside = driver.enter(workload, passage, Door(what))
            relay(connection, inside, sends=Channel.STDOUT, receives=Channel.STDIN)
        else:
            raise InvalidRequest(f"a migration has no {what!r}")

    def _admitted(self, peer: Peer, request: StreamRequest) -> tuple[CanMigrate, DesiredWorkload]:
        """Whoever calls must be the host that the migration is from, with its ticket.

        :raises NotFound: it is not, or there is no such migration: one does not learn which.
        """
        found = self._find(request.workload_id)
        incoming = found[1].incoming if found is not None else None
        shown = ticket_hash(str(request.parameters.get("ticket", "")))
        if (
            found is None
            or incoming is None
            or incoming.id != request.parameters.get("migration")
            or incoming.source_host_id != common_name(peer)
            or not hmac.compare_digest(incoming.ticket_hash, shown)
        ):
            raise NotFound("no such migration is expected here", code="not_expected")
        return mover(found[0], found[1]), found[1]


def _done(connection: ServerConnection) -> None:
    connection.send(frame(Channel.END, b'{"exit_code": 0}'))
