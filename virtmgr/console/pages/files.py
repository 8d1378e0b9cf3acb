"""Files: into and out of workloads of all kinds.

What comes out is a file, or an archive of a folder. What goes in is packed by the page's script, as
the API takes archives.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from typing import IO, Any, Final, cast

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as AnyResponse

from virtmgr.console.pages.workloads import page
from virtmgr.console.rest import Refusal

blueprint = Blueprint("files", __name__, url_prefix="/projects/<project>/workloads/<workload>")

_ONE: Final = "/projects/{project}/workloads/{workload}"
_PIECE: Final = 64 * 1024
_LARGEST: Final = 1 << 50  # bytes: it passes through and is kept nowhere


@blueprint.get("/files")
def show(project: str, workload: str) -> str:
    """The page."""
    return _page(project, workload)


def _page(project: str, workload: str, refusal: Refusal | None = None) -> str:
    found = g.rest.get(_ONE, project=project, workload=workload).document
    return page("files/show.html", found, refusal=refusal, given=request.args)


@blueprint.get("/files/download")
def download(project: str, workload: str) -> AnyResponse | tuple[str, int]:
    """A file as it is, or a folder as a tar archive."""
    path = request.args.get("path", "").strip()
    try:
        pieces = g.rest.stream(
            _ONE + "/files", {"path": path}, {}, project=project, workload=workload
        )
    except Refusal as refusal:
        return _page(project, workload, refusal), 422
    found = unpacked(pieces, posixpath.basename(posixpath.normpath(path)) or workload)
    response = Response(found.pieces, mimetype=found.media_type)
    headers: Headers = response.headers
    headers.set("Content-Disposition", "attachment", filename=found.name)
    if found.size is not None:
        headers["Content-Length"] = str(found.size)
    return response


@blueprint.put("/files")
def upload(project: str, workload: str) -> Response | tuple[Response, int]:
    """Unpack the archive that the page's script made in a folder of the workload."""
    request.max_content_length = _LARGEST
    headers = {"Content-Type": "application/x-tar"}
    query, size = {"path": request.args.get("path", "")}, request.content_length or 0
    try:
        g.rest.pass_on(
            "PUT",
            _ONE + "/files",
            query,
            request.stream,
            size,
            headers,
            project=project,
            workload=workload,
        )
    except Refusal as refusal:
        return jsonify(refusal.problem), refusal.status
    return jsonify({})


@dataclass(frozen=True)
class Download:
    """What a browser is given."""

    name: str
    media_type: str
    size: int | None
    pieces: Iterator[bytes]


def unpacked(archive: Iterator[bytes], name: str) -> Download:
    """The one file that an archive begins with, or the archive where it begins with a folder."""
    source = _Kept(archive)
    try:
        tar = tarfile.open(  # noqa: SIM115  it is read as long as the browser takes
            fileobj=cast(IO[bytes], source), mode="r|", bufsize=_PIECE
        )
        first = tar.next()
        if first is not None and first.isreg():
            content = tar.extractfile(first)
            assert content is not None  # it is a regular file
            source.forget()
            return Download(name, "application/octet-stream", first.size, _read(content, source))
    except tarfile.TarError:
        pass  # it is given as it came
    return Download(f"{name}.tar", "application/x-tar", None, source.all())


def _read(content: IO[bytes], source: _Kept) -> Iterator[bytes]:
    try:
        while piece := content.read(_PIECE):
            yield piece
    finally:
        source.close()


class _Kept(RawIOBase):
    """Pieces as a file that remembers what was read of it."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""
        self._read: list[bytes] | None = []

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """As many bytes as are asked for, but at the end: tarfile wants whole blocks."""
        while len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        given, self._rest = self._rest[:size], self._rest[size:]
        if self._read is not None:
            self._read.append(given)
        return given

    def forget(self) -> None:
        """Nothing of it is wanted again."""
        self._read = None

    def all(self) -> Iterator[bytes]:
        """What was read, and what was not."""
        try:
            yield from self._read or ()
            yield self._rest
            yield from self._pieces
        finally:
            self.close()

    def close(self) -> None:
        end: Any = getattr(self._pieces, "close", None)
        if end is not None:
            end()
        super().close()
