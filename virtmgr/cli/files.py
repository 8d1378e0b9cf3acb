"""``cp``: files into and out of workloads, as tar streams."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from virtmgr.cli.command import command, project_option
from virtmgr.cli.session import Session, pass_session

_CHUNK = 64 * 1024
_PATIENCE = 600.0


@dataclass(frozen=True)
class Place:
    """One side of a copy. ``workload`` None: here; the path ``-``: standard input or output."""

    workload: str | None
    path: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """``web1:/etc/hosts`` is in a workload; ``./a:b``, ``/a`` and ``a`` are here."""
        found = re.fullmatch(r"([a-z0-9][a-z0-9-]*):(.*)", text, re.DOTALL)
        return cls(found[1], found[2]) if found else cls(None, text)


@command("cp")
@click.argument("source")
@click.argument("destination")
@project_option
@pass_session
def cp(session: Session, source: str, destination: str) -> None:
    """Copy files and directories between here and a workload.

    \b
    virtmgr cp web1:/etc/nginx ./nginx
    virtmgr cp page.html web1:/var/www/       a trailing / says: into this directory
    virtmgr cp web1:/data - > data.tar        the tar archive itself
    """
    origin, target = Place.parse(source), Place.parse(destination)
    if (origin.workload is None) == (target.workload is None):
        raise click.UsageError("one side is in a workload (NAME:PATH), the other is here")
    if origin.workload is not None:
        pull(session, origin.workload, origin.path, target.path)
    elif target.workload is not None:
        push(session, origin.path, target.workload, target.path)


def pull(session: Session, workload: str, path: str, target: str) -> None:
    """From a workload to here."""
    from virtmgr.cli.archive import unpack

    _check_absolute(path)
    chunks = session.client.download(
        session.path("workloads", workload, "files"), {"path": path}, timeout=_PATIENCE
    )
    if target != "-":
        unpack(chunks, Path(target))
        return
    for data in chunks:
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def push(session: Session, source: str, workload: str, path: str) -> None:
    """From here into a workload."""
    from virtmgr.cli.archive import pack

    _check_absolute(path)
    if source == "-":
        directory, body = path, _standard_input()
    else:
        directory, name = destination(path, Path(source).resolve(strict=True).name)
        body = pack(Path(source), name)
    _put(session, workload, directory, body)


def destination(path: str, source_name: str) -> tuple[str, str]:
    """The directory to unpack in, and the name to unpack under. Pure.

    ``/a/`` and ``/a/.`` are directories to copy into; ``/a/b`` is the new name.
    """
    if path.endswith("/") or posixpath.basename(path) == ".":
        return posixpath.normpath(path), source_name
    return posixpath.dirname(path), posixpath.basename(path)


def _put(session: Session, workload: str, directory: str, body: Iterable[bytes]) -> None:
    opened = session.client.stream(
        "PUT",
        session.path("workloads", workload, "files"),
        {"path": directory},
        body=body,
        headers={"Content-Type": "application/x-tar"},
        timeout=_PATIENCE,
    )
    with opened as response:
        response.read()


def _standard_input() -> Iterator[bytes]:
    while data := sys.stdin.buffer.read(_CHUNK):
        yield data


def _check_absolute(path: str) -> None:
    if not path.startswith("/"):
        raise click.UsageError(f"{path!r}: give an absolute path in the workload")
