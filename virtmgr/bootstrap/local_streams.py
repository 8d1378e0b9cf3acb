"""Where the hub listens for the web process of its own machine: a Unix socket, without TLS.

Tickets are all that opens a stream there, as on the hub's port.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NAME: Final = "streams.sock"
_BACKLOG: Final = 128


def listen(directory: Path) -> socket.socket:
    """The listener, in place of one that a killed process has left."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    (directory / _NAME).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with _short(directory) as path:
        listener.bind(path)
    (directory / _NAME).chmod(0o600)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def connect(directory: Path) -> socket.socket:
    """A connection to the hub.

    :raises OSError: it does not listen.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _short(directory) as path:
            connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """The socket's path through a descriptor: it has at most 107 bytes then."""
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{_NAME}"
    finally:
        os.close(opened)
