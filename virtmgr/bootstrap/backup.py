"""``virtmgr backup`` and ``restore``: the whole control plane in one private file.

The file is a tar of named members, never unpacked by the names that stand in it:

    manifest.json           what is in it: schema, proofs of tables, checksums of files
    database/TABLE.jsonl.gz rows, apart from any one database (``store/rows.py``)
    files/NAME              the CA's key and certificate (the next one's too), the key of kept
                            credentials for ssh, credentials for registries
    images/DIGEST           blobs of images, where they were asked for
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, select

from virtmgr import __version__
from virtmgr.config.settings import BackedUp, ServerSettings
from virtmgr.domain.errors import Conflict, InvalidRequest, NotFound, StorageError
from virtmgr.domain.image import Blob, ImageState
from virtmgr.enrollment.pki import write_private
from virtmgr.images.blobs import BlobStore
from virtmgr.services.image_worker import blobs_change
from virtmgr.store import migrate, rows, tables, transfer
from virtmgr.store.engine import make_engine
from virtmgr.store.rows import Checksum, Proof, Row
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_FORMAT: Final = 1
_FILES: Final = (  # below the shared directory
    # The next CA's key first: it becomes ca.key while a backup is made, or it does not.
    *("pki/ca-next.key", "pki/ca.key", "pki/ca.crt", "pki/ca-link.crt"),
    *("pki/credentials.key", "registry-auth.json"),
)
_PUBLIC: Final = ("pki/ca.crt", "pki/ca-link.crt")
_MOST_MANIFEST: Final = 16 * 1024**2


def back_up(settings: ServerSettings, path: Path, *, images: bool, replace: bool) -> BackedUp:
    """Write everything to ``path``, as it is at one moment; the control plane may run meanwhile.

    Nobody else may read the file. It appears when it is whole.

    :raises Conflict: ``path`` is there and may not be replaced; the schema is not this version's.
    :raises StorageError: it cannot be written.
    """
    if path.exists() and not replace:
        raise Conflict(
            f"write the backup to {path}: the file is there",
            code="file_exists",
            hint="choose another name, or give --yes to replace it",
        )
    transfer.require_newest(settings.database)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
            scratch = Path(directory)
            whole = scratch / "backup.tar"
            with _private_tar(whole) as archive, _kept(settings, scratch, images) as kept:
                done = _write(settings, archive, scratch, *kept)
            _sync(whole)
            whole.replace(path)
            _sync(path.parent)
    except OSError as error:
        raise StorageError(
            f"write the backup to {path}: {error.strerror or error}",
            hint="choose a directory with enough room that can be written to",
        ) from error
    return done


@contextmanager
def _kept(
    settings: ServerSettings, scratch: Path, images: bool
) -> Iterator[tuple[Connection, list[Blob]]]:
    """A snapshot of the database, and of the blobs that its images need: links of them stay when
    images are removed meanwhile."""
    store = BlobStore(settings.shared / "images")
    units = SqlUnitOfWorkFactory(make_engine(settings.database))
    with store.scratch() as links, closing(units), rows.snapshot(settings.database) as connection:
        with units() as uow:
            blobs_change(uow, datetime.now(UTC))  # keeps removals out until the unit ends
            needed = _needed(connection) if images else []
            blobs = [_link(store, digest, links) for digest in needed]
        if not images:
            rows.tables_of(connection)  # the snapshot is taken at the first look
        (scratch / "images").symlink_to(links)
        yield connection, blobs


def _needed(connection: Connection) -> list[str]:
    ready = select(tables.images.c.id).where(tables.images.c.state == ImageState.READY)
    needed = tables.image_blobs.c
    return sorted(
        connection.scalars(select(needed.digest).where(needed.image_id.in_(ready)).distinct())
    )


def _link(store: BlobStore, digest: str, links: Path) -> Blob:
    try:
        os.link(store.path(digest), links / digest)
    except FileNotFoundError as error:
        raise Conflict(
            f"back up the images: blob {digest} is missing in the image store",
            code="blob_missing",
            hint="'virtmgr image inspect' shows which image needs it: import that again, or "
            "back up without --images",
        ) from error
    return Blob(digest=digest, size=store.size(digest))


def _write(
    settings: ServerSettings,
    archive: tarfile.TarFile,
    scratch: Path,
    connection: Connection,
    blobs: list[Blob],
) -> BackedUp:
    """The manifest comes first, so all that it tells of is made before."""
    numbers = rows.last_numbers(connection)
    proofs = []
    for table in rows.tables_of(connection):
        checksum = Checksum()
        with gzip.open(scratch / f"{table.name}.jsonl.gz", "wt", encoding="utf-8") as file:
            for row in checksum.of(rows.read(connection, table)):
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
        proofs.append(checksum.proof(table.name))
    files = {
        name: (settings.shared / name).read_bytes()
        for name in _FILES
        if (settings.shared / name).exists()
    }
    manifest = {
        "format": _FORMAT,
        "version": __version__,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": migrate.head_revision(),
        "last_numbers": numbers,
        "tables": [asdict(proof) for proof in proofs],
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "images": [{"digest": blob.digest, "size": blob.size} for blob in blobs],
        "settings": {  # for people: restore does not read them
            "listen": str(settings.listen),
            "agent_listen": str(settings.agent_listen),
            "stream_listen": str(settings.stream_listen),
            "address": settings.address,
            "registry_mirrors": settings.registry_mirrors,
        },
    }
    _add(archive, "manifest.json", json.dumps(manifest, indent=1).encode())
    for proof in proofs:
        _add_file(archive, _member(proof.table), scratch / f"{proof.table}.jsonl.gz")
    for name, content in files.items():
        _add(archive, f"files/{name}", content)
    for blob in blobs:
        _add_file(archive, f"images/{blob.digest}", scratch / "images" / blob.digest)
    return BackedUp(
        made_at=str(manifest["made_at"]),
        tables=tuple((proof.table, proof.rows, proof.sha256) for proof in proofs),
        files=tuple(files),
        images=len(blobs),
        image_bytes=sum(blob.size for blob in blobs),
    )


def restore(settings: ServerSettings, path: Path, *, replace: bool) -> BackedUp:
    """Make database, CA, credentials and images what a backup holds, on either kind of database.

    Rows are proven before they count; what fails in the database leaves it as it was.

    :param replace: whether what is there may go.
    :raises NotFound: there is no such file.
    :raises InvalidRequest: it is no backup, is damaged, or is of a newer virtmgr.
    :raises Conflict: something is there that may not be replaced, or a control plane runs.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            manifest = _manifest(archive)
            files = {name: _file(archive, manifest, name) for name in manifest["files"]}
            settings.data_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_place(settings, files, replace=replace)
            blobs = _restore_images(settings, archive, manifest)
            proofs = transfer.fill(settings.database, _content(archive, manifest), replace=replace)
    except FileNotFoundError as error:
        raise NotFound(f"read the backup {path}: there is no such file") from error
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, ValueError, KeyError) as error:
        raise _damaged(str(error)) from error
    for name, content in files.items():
        write_private(settings.shared / name, content, 0o644 if name in _PUBLIC else 0o600)
    return BackedUp(
        made_at=manifest["made_at"],
        tables=tuple((proof.table, proof.rows, proof.sha256) for proof in proofs),
        files=tuple(files),
        images=len(blobs),
        image_bytes=sum(blob.size for blob in blobs),
    )


def _check_place(settings: ServerSettings, files: dict[str, bytes], *, replace: bool) -> None:
    """Refuse before anything is changed."""
    with transfer.opened(settings.database) as connection:
        if rows.is_in_use(connection):
            raise transfer.in_use(settings.database, "restore")
        full = not rows.is_empty(connection)
    present = [settings.shared / name for name in _FILES]
    others = [
        str(path)
        for path, name in zip(present, _FILES, strict=True)
        if path.exists() and path.read_bytes() != files.get(name, b"")
    ]
    if not replace and (full or others):
        found = [*others, *(["the database, which is not empty"] if full else [])]
        raise Conflict(
            f"restore the backup: it would replace {', '.join(found)}",
            code="not_empty",
            hint="give --yes to replace it; 'virtmgr backup' keeps what is there",
        )


def _restore_images(
    settings: ServerSettings, archive: tarfile.TarFile, manifest: dict[str, Any]
) -> list[Blob]:
    """Those that are there already stay; each is verified by its digest."""
    store = BlobStore(settings.shared / "images")
    blobs = [Blob(digest=one["digest"], size=one["size"]) for one in manifest["images"]]
    for blob in blobs:
        if not store.exists(blob.digest):
            store.add(_chunks(_open(archive, f"images/{blob.digest}")), blob)
    return blobs


def _content(archive: tarfile.TarFile, manifest: dict[str, Any]) -> transfer.Content:
    proofs = [Proof(**one) for one in manifest["tables"]]

    def rows_of(table: str) -> Iterator[Row]:
        with gzip.open(_open(archive, _member(table)), "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    return transfer.Content(
        revision=manifest["revision"],
        last_numbers=manifest["last_numbers"],
        tables=frozenset(proof.table for proof in proofs),
        rows_of=rows_of,
        proofs=proofs,
    )


def _manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    content = _open(archive, "manifest.json").read(_MOST_MANIFEST)
    manifest: dict[str, Any] = json.loads(content)
    if manifest["format"] != _FORMAT or manifest["revision"] not in migrate.revisions():
        raise InvalidRequest(
            f"restore the backup: it was made by virtmgr {manifest['version']}, whose backups this "
            f"version ({__version__}) does not know",
            code="backup_too_new",
            hint="install that version, restore, then change versions",
        )
    return manifest


def _file(archive: tarfile.TarFile, manifest: dict[str, Any], name: str) -> bytes:
    if name not in _FILES:
        raise _damaged(f"it holds {name!r}, which is no file of the control plane's")
    content: bytes = _open(archive, f"files/{name}").read()
    if hashlib.sha256(content).hexdigest() != manifest["files"][name]:
        raise _damaged(f"{name} is not what it was")
    return content


def _open(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.getmember(name)
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        raise _damaged(f"{name} is no file")
    return file


def _chunks(file: Any) -> Iterator[bytes]:
    while content := file.read(1 << 20):
        yield content


def _damaged(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"restore the backup: it is damaged, or no backup of virtmgr's ({reason})",
        code="backup_damaged",
        hint="nothing of the database was changed; take another backup",
    )


def _member(table: str) -> str:
    return f"database/{table}.jsonl.gz"


@contextmanager
def _private_tar(path: Path) -> Iterator[tarfile.TarFile]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with (
        os.fdopen(descriptor, "wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        yield archive


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_info(name, len(content)), io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    with path.open("rb") as file:
        archive.addfile(_info(name, path.stat().st_size), file)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    info.mtime = int(datetime.now(UTC).timestamp())
    return info


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
