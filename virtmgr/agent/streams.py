"""Serves exec, console, VNC, logs and file streams to the control plane, over mutual TLS.

The control plane dials; its certificate is the authorisation. Another host is let in for a live
migration from it that is desired here (``migrating``), and for nothing else. One thread a stream
and direction.
"""

from __future__ import annotations

import json
import select
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from io import RawIOBase
from socket import SHUT_RDWR, SHUT_WR, socket
from typing import Any, BinaryIO, TypeVar, cast

import structlog
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.sync.server import Server, ServerConnection, serve

from virtmgr.agent import fencing, moving
from virtmgr.agent.migrating import ACTION as MIGRATE
from virtmgr.agent.migrating import Receiver
from virtmgr.agent.telling import in_names
from virtmgr.domain.errors import InvalidRequest, NotFound, Unsupported, VirtmgrError
from virtmgr.domain.fencing import RELAY
from virtmgr.domain.streaming import LARGEST_MESSAGE, Channel, StreamRequest, frame
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.values import known_fields
from virtmgr.domain.workload import Reason
from virtmgr.ports.certificates import CONTROL_PLANE, Peer, common_name
from virtmgr.ports.driver import (
    PROTOCOLS,
    CanExec,
    CanMove,
    CanPublish,
    ExecRequest,
    ExecSession,
    HasConsole,
    HasDisplay,
    HasFiles,
    HasLogs,
    WorkloadDriver,
)
from virtmgr.ports.host import HostStorage

_CHUNK = 65536
_LOOK = 1000  # milliseconds between looks whether a command has ended

_log = structlog.get_logger()
P = TypeVar("P")
Serve = Callable[[ServerConnection, WorkloadDriver, DesiredWorkload, dict[str, Any]], None]
Find = Callable[[str], tuple[WorkloadDriver, DesiredWorkload] | None]


class StreamServer:
    """Listens on ``address`` until it is closed."""

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        find: Find,
        storage: HostStorage,
        receiver: Receiver | None = None,
    ) -> None:
        self._find = find
        self._receiver = receiver
        self._storage = storage
        self._server: Server = serve(
            self._serve,
            address[0],
            address[1],
            ssl=context,
            max_size=LARGEST_MESSAGE,
            compression=None,
            open_timeout=10,
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="streams", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self, connection: ServerConnection) -> None:
        try:
            self._answer(connection)
        except VirtmgrError as error:
            _fail(connection, Reason.of(error))
        except (ConnectionClosed, TimeoutError):
            return
        except Exception as error:  # noqa: BLE001  a connection's last resort: told and logged
            _log.exception("stream.crashed")
            _end(connection, {"code": "internal_error", "detail": f"the stream broke: {error!r}"})

    def _answer(self, connection: ServerConnection) -> None:
        """The control plane may ask for anything; another host only for a migration from it."""
        by_control_plane = _caller(connection) == CONTROL_PLANE
        if not by_control_plane and self._receiver is None:
            raise NotFound("only the control plane may open streams")
        request = StreamRequest.read(connection.recv(timeout=10))
        if request.action == MIGRATE and self._receiver is not None:
            self._receiver.serve(connection, request)
        elif by_control_plane:
            self._dispatch(connection, request)
        else:
            raise NotFound("only the control plane may open streams")

    def _dispatch(self, connection: ServerConnection, request: StreamRequest) -> None:
        if request.action == "arrive":  # of a workload that is another host's yet
            moving.receive(self._storage, request.parameters, _incoming(connection))
            _end(connection, {"exit_code": 0})
            return
        if request.action == RELAY:
            fencing.carry(connection, request.parameters)
            return
        found = self._find(request.workload_id)
        if found is None:
            name = request.workload_name or request.workload_id
            raise NotFound(
                f"workload {name!r} is not on this host",
                hint="it may have moved or be gone: see 'virtmgr list -o wide'",
            )
        driver, workload = found
        serve_action = self._actions().get(request.action)
        if serve_action is None:
            raise InvalidRequest(f"there is no stream {request.action!r}")
        try:
            serve_action(connection, driver, workload, request.parameters)
        except VirtmgrError as error:
            _fail(connection, in_names(Reason.of(error), workload))

    def _actions(self) -> Mapping[str, Serve]:
        return {
            "exec": _serve_exec,
            "console": _serve_console,
            "vnc": _serve_display,
            "logs": _serve_logs,
            "pull": _serve_pull,
            "push": _serve_push,
            "export": _serve_export,
            "leave": partial(_serve_leave, self._storage),
        }


def _capable(driver: WorkloadDriver, protocol: type[P], verb: str, workload: DesiredWorkload) -> P:
    if not isinstance(driver, protocol):
        feature = next(feature for feature, one in PROTOCOLS.items() if one is protocol)
        why = driver.capabilities().why_not.get(feature, f"driver {driver.name} does not offer it")
        raise Unsupported(
            f"workload {workload.name!r} has no {verb}: {why}",
            hint="see what each kind can do in docs/parity.md",
        )
    return driver


def _serve_exec(
    connection: ServerConnection,
    driver: WorkloadDriver,
    workload: DesiredWorkload,
    parameters: dict[str, Any],
) -> None:
    asked = {**known_fields(ExecRequest, parameters), "command": tuple(parameters["command"])}
    session = _capable(driver, CanExec, "exec", workload).exec(workload.id, ExecRequest(**asked))
    outputs = [(Channel.STDOUT, session.stdout)]
    if session.stderr is not None:
        outputs.append((Channel.STDERR, session.stderr))
    pumps = [
        threading.Thread(target=_pump_file, args=(connection, channel, file), daemon=True)
        for channel, file in outputs
    ]
    reader = threading.Thread(target=_read_exec_input, args=(connection, session), daemon=True)
    for thread in (*pumps, reader):
        thread.start()
    ended = threading.Event()
    watch = threading.Thread(target=_end_with, args=(connection, session, ended), daemon=True)
    watch.start()
    code = session.wait()
    ended.set()
    for pump in pumps:
        pump.join()
    _end(connection, {"exit_code": code})
    connection.close()
    reader.join()


def _end_with(connection: ServerConnection, session: ExecSession, ended: threading.Event) -> None:
    """End a command whose client is gone, also one that neither writes nor takes its input.

    Then nothing is read from the connection, and only the kernel knows that it was closed.
    """
    hung_up = select.poll()
    with suppress(OSError, ValueError):  # it is closed on this side, too
        hung_up.register(connection.socket, select.POLLRDHUP)
        while not ended.is_set() and connection.state is not State.CLOSED:
            if hung_up.poll(_LOOK):
                break
    session.kill()  # no effect on a command that has ended


def _read_exec_input(connection: ServerConnection, session: ExecSession) -> None:
    """Pass input on until the client goes, in whatever way; then the command ends too."""
    try:
        for message in connection:
            _pass_on(session, *_split(message))
    except ConnectionClosed:
        pass  # the client is gone: what it ran ends below
    except InvalidRequest as error:
        _fail(connection, Reason.of(error))
        connection.close()
    finally:
        session.kill()  # no effect on a command that has ended


def _pass_on(session: ExecSession, channel: int, content: bytes) -> None:
    if channel == Channel.RESIZE:
        session.resize(*_terminal_size(content))
    elif session.stdin is not None:
        with suppress(OSError, ValueError):  # the command closed its input
            if channel == Channel.STDIN:
                session.stdin.write(content)
                session.stdin.flush()
            elif channel == Channel.CLOSE:
                session.stdin.close()


def _terminal_size(content: bytes) -> tuple[int, int]:
    try:
        size = json.loads(content)
        return int(size["rows"]), int(size["columns"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"a terminal's new size cannot be read: {error!r}",
            hint='send {"rows": R, "columns": C}',
        ) from error


def _serve_console(
    connection: ServerConnection,
    driver: WorkloadDriver,
    workload: DesiredWorkload,
    parameters: dict[str, Any],
) -> None:
    del parameters
    _bridge(connection, _capable(driver, HasConsole, "console", workload).console(workload.id))


def _serve_display(
    connection: ServerConnection,
    driver: WorkloadDriver,
    workload: DesiredWorkload,
    parameters: dict[str, Any],
) -> None:
    del parameters
    _bridge(connection, _capable(driver, HasDisplay, "display", workload).display(workload.id))


def _bridge(connection: ServerConnection, peer: socket) -> None:
    """Copy both ways until one side ends."""
    pump = threading.Thread(target=_pump_socket, args=(connection, peer), daemon=True)
    pump.start()
    try:
        for message in connection:
            channel, content = _split(message)
            if channel == Channel.STDIN:
                peer.sendall(content)
            elif channel == Channel.CLOSE:
                peer.shutdown(SHUT_WR)
    except (ConnectionClosed, OSError):
        pass  # either side is gone: both are closed below
    finally:
        with suppress(OSError):
            peer.shutdown(SHUT_RDWR)
        pump.join()
        peer.close()


def _pump_socket(connection: ServerConnection, peer: socket) -> None:
    try:
        while content := peer.recv(_CHUNK):
            connection.send(frame(Channel.STDOUT, content))
        _end(connection, {"exit_code": 0})
        connection.close()
    except (ConnectionClosed, OSError):
        return


def _pump_file(connection: ServerConnection, channel: Channel, file: BinaryIO) -> None:
    with suppress(ConnectionClosed, OSError):
        while content := file.read(_CHUNK):
            connection.send(frame(channel, content))


def _serve_logs(
    connection: ServerConnection,
    driver: WorkloadDriver,
    workload: DesiredWorkload,
    parameters: dict[str, Any],
) -> None:
    lines = _capable(driver, HasLogs, "logs", workload).logs(
        workload.id, follow=bool(parameters.get("follow")), tail=parameters.get("tail")
    )
    _send_all(connection, lines)


def _serve_pull(
    connection: ServerConnection,
    driver: WorkloadDriver,
    workload: DesiredWorkload,
    parameters: dict[str, Any],
) -> None:
    chunks = _capable(driver, HasFiles, "file transfer", workload).pull(
        workload.id, parameters["path"]
    )
    _send_all(connection, chunks)


def _serve_export(
    connection: ServerConnection,
    driver: WorkloadDriver,
    workload: DesiredWorkload,
    parameters: dict[str, Any],
) -> None:
    del parameters
    exporter = _capable(driver, CanPublish, "publishing", workload)
    with closing(exporter.export(workload.id)) as chunks:
        _send_whole(connection, chunks)


def _serve_leave(
    storage: HostStorage,
    connection: ServerConnection,
    driver: WorkloadDriver,
    workload: DesiredWorkload,
    parameters: dict[str, Any],
) -> None:
    del parameters
    mover = _capable(driver, CanMove, "moving", workload)
    with closing(moving.pack(storage, mover, workload)) as chunks:
        _send_whole(connection, chunks)


def _send_whole(connection: ServerConnection, chunks: Iterator[bytes]) -> None:
    for content in chunks:
        for start in range(0, max(1, len(content)), _CHUNK):  # an empty one: still at work
            connection.send(frame(Channel.STDOUT, content[start : start + _CHUNK]))
    _end(connection, {"exit_code": 0})


def _send_all(connection: ServerConnection, chunks: Iterator[bytes]) -> None:
    for content in chunks:
        if content:
            for start in range(0, len(content), _CHUNK):
                connection.send(frame(Channel.STDOUT, content[start : start + _CHUNK]))
        elif connection.close_code is not None:
            return
        else:
            connection.ping()
    _end(connection, {"exit_code": 0})


def _serve_push(
    connection: ServerConnection,
    driver: WorkloadDriver,
    workload: DesiredWorkload,
    parameters: dict[str, Any],
) -> None:
    target = _capable(driver, HasFiles, "file transfer", workload)
    archive = _incoming(connection)
    target.push(workload.id, parameters["path"], archive)
    while archive.read(_CHUNK):
        pass  # tar pads its archives; the sender is to be read to its end
    _end(connection, {"exit_code": 0})


def _incoming(connection: ServerConnection) -> BinaryIO:
    return cast(BinaryIO, _Incoming(connection))


class _Incoming(RawIOBase):
    """What comes on the STDIN channel, as a file that ends with its CLOSE."""

    def __init__(self, connection: ServerConnection) -> None:
        super().__init__()
        self._connection = connection
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            channel, content = _split(self._connection.recv())
            if channel == Channel.STDIN:
                self._rest = content
            self._ended = channel == Channel.CLOSE
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _split(message: str | bytes) -> tuple[int, bytes]:
    if isinstance(message, str) or not message:
        raise InvalidRequest("stream messages are binary and start with their channel")
    return message[0], message[1:]


def _caller(connection: ServerConnection) -> str | None:
    """Who calls, by the certificate; None: whoever it was has gone already."""
    try:
        return common_name(cast(Peer, connection.socket))
    except AttributeError:  # Python's ssl, where another thread has closed it meanwhile
        return None


def _fail(connection: ServerConnection, reason: Reason) -> None:
    _end(connection, {"code": reason.code, "detail": reason.message, "hint": reason.hint})


def _end(connection: ServerConnection, result: dict[str, Any]) -> None:
    with suppress(ConnectionClosed):
        connection.send(frame(Channel.END, json.dumps(result).encode()))
