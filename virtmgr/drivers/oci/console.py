"""The terminal, or the output, of a container's first process, through conmon's attach socket."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

from virtmgr.domain.errors import DriverError

_PACKET = 65536
_LET_GO = Path(__file__).with_name("let_go.py")


def attach(directory: Path) -> socket.socket:
    """A stream socket to the container whose bundle is ``directory``; closing it detaches.

    conmon speaks packets, each with the stream's number in front; a thread makes them a stream.

    :raises DriverError: conmon does not answer.
    """
    packets = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A socket's path has at most 107 bytes: go through a short one.
        packets.connect(f"/proc/self/fd/{opened}/attach")
    except OSError as error:
        packets.close()
        raise DriverError(
            f"cannot attach to the console of workload {directory.name}: {error.strerror}",
            hint="its conmon may have been killed; restart the workload",
        ) from error
    finally:
        os.close(opened)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    Thread(target=_pump, args=(packets, ours), name="oci-console", daemon=True).start()
    return theirs


def let_go(pid: int) -> None:
    """Free a created system container's terminal, so that a getty in it can have it.

    The runtime makes it the controlling terminal of the first process, which inits do not expect
    and never give up; without one of its own a log-in shell has no Ctrl-C and no job control.

    :raises DriverError: the kernel refuses.
    """
    terminal = os.open(f"/proc/{pid}/fd/0", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_LET_GO)],
            stdin=terminal,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
    finally:
        os.close(terminal)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise DriverError(f"cannot free the container's terminal for its init: {said}")


def _pump(packets: socket.socket, stream: socket.socket) -> None:
    """Carry bytes both ways until either side ends."""
    poller = select.poll()
    poller.register(packets, select.POLLIN)
    poller.register(stream, select.POLLIN)
    with packets, stream:
        try:
            while True:
                ready = {fd for fd, _ in poller.poll()}
                if packets.fileno() in ready:
                    packet = packets.recv(_PACKET)
                    if not packet:
                        return
                    stream.sendall(packet[1:])
                if stream.fileno() in ready:
                    data = stream.recv(8192)
                    if not data:
                        return
                    packets.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return  # the other side went away
