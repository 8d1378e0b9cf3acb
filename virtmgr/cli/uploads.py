"""Sending a large file: goes on after a broken connection, or where a killed command was."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from virtmgr.cli.session import Session
from virtmgr.cli.waiting import progress_bar
from virtmgr.domain.errors import Conflict, Unavailable, VirtmgrError

_CHUNK = 1024 * 1024
_PATIENCE = 600.0  # seconds that a step of an upload may take
_TRIES = 8  # in a row without anything coming through
_LONGEST_PAUSE = 10.0  # seconds


def upload(session: Session, path: Path) -> str:
    """Send a file; gives the source to import it by.

    :raises Unavailable: the server does not come back.
    """
    with path.open("rb") as file, ExitStack() as stack:
        status = os.fstat(file.fileno())
        begun = session.client.post(
            "/images/uploads",
            {"key": key_of(path, status), "size": status.st_size},
            repeatable=False,
        )
        advance = _bar(stack, path.name, status.st_size)
        failed = 0
        while (offset := begun["offset"]) < status.st_size:
            advance(offset)
            try:
                begun = _send(session, file, begun, advance)
                failed = 0
            except VirtmgrError as error:
                if not _may_pass(error) or failed == _TRIES:
                    raise
                time.sleep(min(_LONGEST_PAUSE, 0.2 * 2**failed))
                begun = session.client.get(f"/images/uploads/{begun['id']}")
                failed = failed + 1 if begun["offset"] == offset else 0
        return f"upload:{begun['id']}"


def key_of(path: Path, status: os.stat_result) -> str:
    """Stands for a file as it is now: another size or time is another file."""
    text = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _may_pass(error: VirtmgrError) -> bool:
    busy = isinstance(error, Conflict) or error.code in ("upload_offset", "upload_busy")
    return busy or isinstance(error, Unavailable)


def _send(session: Session, file: BinaryIO, begun: Any, advance: Any) -> Any:
    import json

    offset = begun["offset"]
    file.seek(offset)
    headers = {
        "Content-Type": "application/partial-upload",
        "Content-Length": str(begun["size"] - offset),
        "Upload-Offset": str(offset),
    }
    opened = session.client.stream(
        "PATCH",
        f"/images/uploads/{begun['id']}",
        body=_parts(file, advance),
        headers=headers,
        timeout=_PATIENCE,
    )
    with opened as response:
        return json.loads(response.read())


def _parts(file: BinaryIO, advance: Any) -> Iterator[bytes]:
    while data := file.read(_CHUNK):
        yield data
        advance(file.tell())


def _bar(stack: ExitStack, name: str, total: int) -> Any:
    """Shows on a terminal how far it is; a function to be told."""
    if not sys.stderr.isatty():
        return lambda _: None
    from rich.progress import DownloadColumn, TransferSpeedColumn

    bar = stack.enter_context(progress_bar(DownloadColumn(), TransferSpeedColumn()))
    task = bar.add_task(f"upload {name}", total=total, note="")
    return lambda done: bar.update(task, completed=done)
