"""The stream in which a workload's disks go from host to host, holes left out.

A sequence of records, each a length (4 bytes, big endian) and that many bytes of JSON:

- ``{"facts": {…}}`` first;
- ``{"file": NAME, "size": BYTES}`` for each file, then its pieces: offset (8 bytes), length (4
  bytes), content; a piece of length 0 ends the file;
- ``{"end": DIGEST}`` last: the SHA-256 of all bytes before this record.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from virtmgr.domain.errors import StorageError
from virtmgr.domain.values import format_bytes
from virtmgr.drivers import sparse
from virtmgr.ports.driver import Luggage

_LENGTH = struct.Struct(">I")
_PIECE = struct.Struct(">QI")
_LONGEST_RECORD = 4096
_LONGEST_PIECE = 1 << 20
_MOST_FILES = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


def pack(luggage: Luggage) -> Iterator[bytes]:
    """The stream of ``luggage``, whose files nobody writes to meanwhile."""
    digest = hashlib.sha256()
    for part in _parts(luggage):
        digest.update(part)
        yield part
    yield _record({"end": digest.hexdigest()})


def _parts(luggage: Luggage) -> Iterator[bytes]:
    yield _record({"facts": dict(luggage.facts)})
    for name, path in luggage.files.items():
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(handle).st_size
            yield _record({"file": name, "size": size})
            for start, end in sparse.extents(handle):
                while start < min(end, size):
                    content = os.pread(handle, min(_LONGEST_PIECE, end - start), start)
                    if not content:
                        break
                    yield _PIECE.pack(start, len(content)) + content
                    start += len(content)
            yield _PIECE.pack(0, 0)
        finally:
            os.close(handle)


def _record(content: dict[str, Any]) -> bytes:
    text = json.dumps(content).encode()
    return _LENGTH.pack(len(text)) + text


def unpack(stream: BinaryIO, directory: Path, *, limit: int) -> tuple[dict[str, int], list[str]]:
    """Write the files of a stream to ``directory``, which is empty; its facts, and their names.

    They are on the disk when this returns.

    :param limit: bytes that may come, in all.
    :raises StorageError: it is more, or not what it should be.
    :raises OSError: the disk is full or fails.
    """
    return _Reader(stream, limit).unpack(directory)


class _Reader:
    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._left = limit
        self._limit = limit
        self._digest = hashlib.sha256()

    def unpack(self, directory: Path) -> tuple[dict[str, int], list[str]]:
        facts = self._facts(self._record())
        names: list[str] = []
        while True:
            before = self._digest.hexdigest()
            record = self._record()
            if "end" in record:
                if record["end"] != before:
                    _refuse("its checksum is wrong")
                return facts, names
            name, size = record.get("file"), record.get("size")
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name in names:
                _refuse(f"a file in it is called {name!r:.200}")
            if not isinstance(size, int) or not 0 <= size < 2**62 or len(names) >= _MOST_FILES:
                _refuse(f"file {name} in it cannot be")
            names.append(name)
            self._file(directory / name, size)

    def _facts(self, record: dict[str, Any]) -> dict[str, int]:
        facts = record.get("facts")
        if not isinstance(facts, dict) or not all(isinstance(one, int) for one in facts.values()):
            _refuse("it does not begin with facts")
        return dict(facts)

    def _file(self, path: Path, size: int) -> None:
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            os.ftruncate(file.fileno(), size)
            while True:
                start, length = _PIECE.unpack(self._exactly(_PIECE.size))
                if length == 0:
                    break
                if length > _LONGEST_PIECE or start + length > size:
                    _refuse(f"a piece of file {path.name} lies outside of it")
                file.seek(start)
                file.write(self._exactly(length))
            file.flush()
            os.fsync(file.fileno())

    def _record(self) -> dict[str, Any]:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > _LONGEST_RECORD:
            _refuse("a record in it is too long")
        try:
            found = json.loads(self._exactly(length))
        except ValueError as error:
            raise StorageError(
                f"what comes from the other host is refused: {error}", code="arrival_refused"
            ) from error
        if not isinstance(found, dict):
            _refuse("a record in it is none")
        return found

    def _exactly(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            _refuse(f"it is more than {format_bytes(self._limit)}")
        content = b""
        while len(content) < count:
            piece = self._stream.read(count - len(content))
            if not piece:
                _refuse("it was cut off")
            content += piece
        self._digest.update(content)
        return content


def _refuse(why: str) -> NoReturn:
    raise StorageError(
        f"what comes from the other host is refused: {why}",
        code="arrival_refused",
        hint="are both agents of one version?",
    )
