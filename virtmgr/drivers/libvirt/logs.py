"""Reading the serial console's log, which virtlogd writes and rotates."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK = 65536
_POLL = 0.1  # seconds
_POLLS = 9


def read(
    path: Path, *, follow: bool, tail: int | None, gone: Callable[[], bool]
) -> Iterator[bytes]:
    """The log's content, oldest first, and with ``follow`` what is added until ``gone()``.

    ``gone`` is asked once a second while nothing comes.

    virtlogd renames a full log to ``.0``, the one before to ``.1`` and so on.
    """
    current = _open(path)
    kept = _rotated(path)
    try:
        yield from _last_lines(kept, current, tail)
        while follow:
            ended = gone()  # asked first: what came before the end is still read
            for _ in range(_POLLS):
                current, data = _next(path, current)
                if data or ended:
                    break
                time.sleep(_POLL)
            if ended and not data:
                return
            yield data
    finally:
        if current is not None:
            current.close()


def _rotated(path: Path) -> list[Path]:
    """Older logs, oldest first."""
    numbered = [
        (int(found.suffix[1:]), found)
        for found in path.parent.glob(path.name + ".*")
        if found.suffix[1:].isdigit()
    ]
    return [found for _, found in sorted(numbered, reverse=True)]


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _last_lines(older: list[Path], current: BinaryIO | None, tail: int | None) -> Iterator[bytes]:
    """All of it, or its last ``tail`` lines; a log is bounded by virtlogd, so it is read whole."""
    parts = [path.read_bytes() for path in older if path.exists()]
    if current is not None:
        parts.append(_drain(current))
    content = b"".join(parts)
    if tail is not None:
        lines = content.splitlines(keepends=True)
        content = b"".join(lines[max(0, len(lines) - tail) :])
    for start in range(0, len(content), _CHUNK):
        yield content[start : start + _CHUNK]


def _drain(file: BinaryIO) -> bytes:
    data = b""
    while chunk := file.read(_CHUNK):
        data += chunk
    return data


def _next(path: Path, current: BinaryIO | None) -> tuple[BinaryIO | None, bytes]:
    """What was added, from the file in hand or from the one that took its place."""
    data = current.read(_CHUNK) if current is not None else b""
    if data:
        return current, data
    if current is None:
        return _open(path), b""
    try:
        same = os.path.samestat(os.fstat(current.fileno()), path.stat())
    except FileNotFoundError:
        return current, b""
    if same:
        return current, b""
    rest = current.read(_CHUNK)  # written between the two looks
    if rest:
        return current, rest
    current.close()
    return _open(path), b""
