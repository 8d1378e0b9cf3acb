"""What comes with workloads from other hosts, until they have taken it up.

DIRECTORY/ID/NAME       the files, and ``luggage.json``, written last: then all is there
DIRECTORY/ID.KEY.part/  what is being received; several may be, and whoever ends last counts
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from virtmgr.domain.errors import StorageError
from virtmgr.domain.ids import new_id
from virtmgr.drivers import sparse
from virtmgr.drivers.storage import luggage
from virtmgr.drivers.storage.files import disk_errors, sync_directory
from virtmgr.ports.driver import Luggage

_LIST = "luggage.json"
_PART = ".part"


class Arrivals:
    """Beneath one directory, private to root."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for part in directory.glob(f"*{_PART}"):
            shutil.rmtree(part, ignore_errors=True)  # of an agent that is gone

    def pack(self, what: Luggage) -> Iterator[bytes]:
        return luggage.pack(what)

    def receive(self, arrival_id: str, stream: BinaryIO, *, limit: int) -> None:
        place = self._place(arrival_id)
        part = place.with_name(f"{place.name}.{new_id()[-12:]}{_PART}")
        with disk_errors(f"keep what comes from another host in {part}"):
            part.mkdir(mode=0o700)
            try:
                facts, names = luggage.unpack(stream, part, limit=limit)
                with (part / _LIST).open("w") as file:
                    json.dump({"facts": facts, "files": names}, file)
                    file.flush()
                    os.fsync(file.fileno())
                sync_directory(part)
                shutil.rmtree(place, ignore_errors=True)
                part.rename(place)
                sync_directory(self._directory)
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def get(self, arrival_id: str) -> Luggage:
        place = self._place(arrival_id)
        try:
            listed = json.loads((place / _LIST).read_text())
        except FileNotFoundError as error:
            raise StorageError(
                f"what came from another host ({arrival_id}) is not here any more",
                code="arrival_lost",
                hint="it is sent again by itself",
            ) from error
        return Luggage({name: place / name for name in listed["files"]}, listed["facts"])

    def ids(self) -> tuple[str, ...]:
        found = {path.name.partition(".")[0] for path in self._directory.iterdir()}
        return tuple(sorted(found))

    def remove(self, arrival_id: str) -> None:
        with disk_errors(f"remove what came from another host ({arrival_id})"):
            if (place := self._place(arrival_id)).exists():
                shutil.rmtree(place)

    def _place(self, arrival_id: str) -> Path:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", arrival_id) is None:
            raise StorageError(f"{arrival_id!r} cannot be the id of an arrival")
        return self._directory / arrival_id


def link(file: Path, target: Path) -> None:
    """Let ``target`` be a received file, whole or not at all; a copy where a link cannot be.

    :raises OSError: the disk is full or fails.
    """
    half = target.with_name(target.name + ".partial")
    half.unlink(missing_ok=True)
    try:
        os.link(file, half)
    except OSError:  # another file system, or one without links
        sparse.copy(file, target, durable=True)
    else:
        half.rename(target)
    sync_directory(target.parent)
