"""A cpio archive in the "newc" format, as Linux takes for an initial RAM disk.

https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field


@dataclass
class Archive:
    """Collects members; ``data`` is the finished archive."""

    _parts: list[bytes] = field(default_factory=list)
    _inode: int = 0

    def directory(self, name: str) -> None:
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._add(name, stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def console(self) -> None:
        """/dev/console, which init's standard streams are opened from."""
        self._add("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))

    def data(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        numbers = [self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0]
        header = b"070701" + b"".join(b"%08x" % number for number in numbers)
        self._parts += [_padded(header + encoded), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
