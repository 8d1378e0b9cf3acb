"""``vnc``: a VM's display on a local port, for any VNC viewer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import click

from virtmgr.cli.command import command, project_option, workload_argument
from virtmgr.cli.session import Session, pass_session
from virtmgr.domain.errors import NotFound

_CHUNK = 64 * 1024
_VIEWERS = ("vncviewer", "gvncviewer", "remote-viewer", "xdg-open")


@command("vnc")
@workload_argument
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free one.")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    help="Listen on a Unix socket instead, which only you may use.",
)
@click.option("--open", "open_viewer", is_flag=True, help="Start a VNC viewer as well.")
@click.option("--once", is_flag=True, help="End with the first connection.")
@project_option
@pass_session
def vnc(
    session: Session,
    name: str,
    port: int,
    socket_path: Path | None,
    open_viewer: bool,
    once: bool,
) -> None:
    """Give the display of a VM a port on loopback, until interrupted.

    Every user of this machine can connect to the port; --socket makes one for you alone.
    """
    if open_viewer and socket_path:
        raise click.UsageError("viewers connect to ports: --open and --socket do not go together")
    workload = session.client.get(session.path("workloads", name))
    if workload["kind"] != "vm":
        raise click.UsageError(f"{name} is a container, which has no display: use its console")
    listener = _listen(port, socket_path)
    try:
        where = f"unix:{socket_path}" if socket_path else _url(listener)
        click.echo(where)
        viewer = _start_viewer(where) if open_viewer else None
        _serve(session, session.path("workloads", name, "vnc"), listener, once=once)
        if viewer is not None:
            viewer.wait()
    finally:
        listener.close()
        if socket_path:
            socket_path.unlink(missing_ok=True)


def _listen(port: int, path: Path | None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", port))
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o077)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen()
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"vnc://{host}:{port}"


def _start_viewer(url: str) -> subprocess.Popen[bytes]:
    for viewer in _VIEWERS:
        if found := shutil.which(viewer):
            address = url.removeprefix("vnc://").replace(":", "::", 1)
            return subprocess.Popen([found, address if viewer == "vncviewer" else url])
    raise NotFound("no VNC viewer is installed", hint=f"install one, or point yours at {url}")


def _serve(session: Session, path: str, listener: socket.socket, *, once: bool) -> None:
    """Bridge each connection to a stream of its own, under a ticket of its own."""
    while True:
        connection, _address = listener.accept()
        with connection:
            bridge(session, path, connection)
        if once:
            return


def bridge(session: Session, path: str, connection: socket.socket) -> None:
    """Carry bytes both ways until one side ends.

    :raises VirtmgrError: the stream cannot be had, or breaks off.
    """
    from virtmgr.cli.streams import Channel, Stream, exit_code_of, open_stream

    def upstream(stream: Stream) -> None:
        try:
            while data := connection.recv(_CHUNK):
                stream.write(data)
        except OSError as error:
            click.echo(f"the viewer's connection was lost: {error}", err=True)
        stream.close()

    with open_stream(session.client, path) as stream:
        pump = threading.Thread(target=upstream, args=(stream,), name="vnc", daemon=True)
        pump.start()
        try:
            for channel, data in stream.messages():
                if channel == Channel.STDOUT:
                    connection.sendall(data)
                elif channel == Channel.END:
                    exit_code_of(data)
                    break
        except BrokenPipeError:
            click.echo("the viewer has gone", err=True)
        finally:
            _shut(connection)
            pump.join(timeout=5)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side has done so
