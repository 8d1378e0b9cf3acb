"""A small file tree made in memory, written as a tar or as a cpio archive, always the same way."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    mode: int  # type and permissions, as in stat(2)
    content: bytes = b""  # a file's bytes, or a symbolic link's target
    device: tuple[int, int] = (0, 0)


@dataclass
class Tree:
    """Entries by relative path; everything belongs to root and has time 0."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def directory(self, path: str, mode: int = 0o755) -> None:
        self.entries[path] = Entry(stat.S_IFDIR | mode)

    def file(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        raw = content.encode() if isinstance(content, str) else content
        self.entries[path] = Entry(stat.S_IFREG | mode, raw)

    def link(self, path: str, target: str) -> None:
        self.entries[path] = Entry(stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self.entries[path] = Entry(stat.S_IFCHR | mode, device=(major, minor))

    def tar(self) -> bytes:
        """A plain tar archive; parents come before what they hold."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, entry in sorted(self.entries.items()):
                archive.addfile(_tar_info(path, entry), io.BytesIO(entry.content))
        return out.getvalue()

    def initrd(self) -> bytes:
        """A gzipped cpio archive as Linux unpacks it (Documentation/driver-api/early-userspace/
        buffer-format.rst)."""
        out = io.BytesIO()
        for inode, (path, entry) in enumerate(sorted(self.entries.items()), start=1):
            _write_cpio(out, path, entry, inode)
        _write_cpio(out, "TRAILER!!!", Entry(0), 0)
        return gzip.compress(out.getvalue(), compresslevel=6, mtime=0)


_TAR_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
}


def _tar_info(path: str, entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = _TAR_TYPES[stat.S_IFMT(entry.mode)]
    info.mode = stat.S_IMODE(entry.mode)
    info.devmajor, info.devminor = entry.device
    if stat.S_ISLNK(entry.mode):
        info.linkname = entry.content.decode()
    else:
        info.size = len(entry.content)
    return info


def _write_cpio(out: io.BytesIO, path: str, entry: Entry, inode: int) -> None:
    name = path.encode() + b"\0"
    major, minor = entry.device
    fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, major, minor, len(name), 0)
    out.write(b"070701" + b"".join(b"%08X" % value for value in fields) + name)
    out.write(bytes(-out.tell() % 4))
    out.write(entry.content)
    out.write(bytes(-out.tell() % 4))
