"""Static files, each below the hash of all of them: browsers keep them for ever."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

DIRECTORY: Final = Path(__file__).parent / "static"
_TYPES: Final = {".js": "text/javascript", ".svg": "image/svg+xml", ".css": "text/css"}
_SMALL: Final = 1024  # bytes; not worth to be compressed

blueprint = Blueprint("assets", __name__, url_prefix="/static")


@cache
def fingerprint() -> str:
    """Changes with any file. Modules import each other by relative paths, so all share it."""
    digest = hashlib.sha256()
    for path in sorted(DIRECTORY.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(DIRECTORY)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def url(name: str) -> str:
    """Where the file ``name`` is served."""
    return f"/static/{fingerprint()}/{name}"


@cache
def _files() -> frozenset[str]:
    found = (path for path in DIRECTORY.rglob("*") if path.is_file())
    return frozenset(path.relative_to(DIRECTORY).as_posix() for path in found)


@cache
def _content(name: str, zipped: bool) -> bytes:
    content = (DIRECTORY / name).read_bytes()
    return gzip.compress(content, 9, mtime=0) if zipped else content


@blueprint.get("/<tree>/<path:name>")
def serve(tree: str, name: str) -> Response:
    """A file; of an older tree the present one, not to be kept."""
    if name not in _files():
        raise NotFound(f"there is no file {name!r}")
    zipped = request.accept_encodings["gzip"] > 0 and len(_content(name, False)) > _SMALL
    kind = _TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0]
    response = Response(_content(name, zipped), mimetype=kind or "application/octet-stream")
    if zipped:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    kept = "public, max-age=31536000, immutable" if tree == fingerprint() else "no-store"
    response.headers["Cache-Control"] = kept
    return response
