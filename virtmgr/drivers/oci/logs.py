"""The output that conmon keeps: lines of ``TIME STREAM TAG TEXT`` (the k8s-file format)."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from virtmgr.drivers.oci import syscalls

_IDLE = 1.0  # seconds between empty answers to a follower


def parse_line(line: bytes) -> bytes:
    """The output in one line of the log; a full line ends with a newline, a partial one not."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 4:
        return b""
    return parts[3] + (b"\n" if parts[2] == b"F" else b"")


def read(path: Path, tail: int | None) -> tuple[bytes, int]:
    """Output so far, its last ``tail`` lines if given, and how far the log was read."""
    pieces: deque[bytes] = deque(maxlen=None if tail is None else max(0, tail))
    position = 0
    partial = b""
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                position += len(line)
                partial += parse_line(line)
                if partial.endswith(b"\n"):
                    pieces.append(partial)
                    partial = b""
    except FileNotFoundError:
        return b"", 0
    if partial:
        pieces.append(partial)
    return b"".join(pieces), position


def follow(path: Path, position: int, is_running: Callable[[], bool]) -> Iterator[bytes]:
    """Output from ``position`` on as it comes; ``b""`` each second while nothing does.

    Ends when the container has ended and everything is read. A log that conmon began anew is read
    from its start.
    """
    watch = syscalls.inotify_init()
    try:
        syscalls.inotify_add_watch(watch, str(path.parent), syscalls.IN_MODIFY)
        file: BinaryIO | None = None
        while True:
            running = is_running()
            if file is None or _was_replaced(path, file):
                if file is not None:
                    file.close()
                    position = 0
                file = path.open("rb") if path.exists() else None
            output = b""
            if file is not None:
                output, position = _more(file, position)
            if output:
                yield output
                continue
            if not running:
                break
            if not _wait(watch):
                yield b""
        if file is not None:
            file.close()
    finally:
        os.close(watch)


def _wait(watch: int) -> bool:
    """Whether something in the log's directory changed within a second."""
    if not select.select([watch], [], [], _IDLE)[0]:
        return False
    os.read(watch, 65536)
    return True


def _was_replaced(path: Path, file: BinaryIO) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _more(file: BinaryIO, position: int) -> tuple[bytes, int]:
    file.seek(position)
    pieces = []
    for line in file:
        if not line.endswith(b"\n"):
            break
        position += len(line)
        pieces.append(parse_line(line))
    return b"".join(pieces), position
