"""A strict reader of tar streams: ustar, pax and GNU long names (POSIX.1-2017 pax, tar(5)).

Written for untrusted archives: it reads forward only, holds at most one header in memory, and
refuses what it does not know. Sparse members are refused, since their size can be anything. Of a
member's extended headers it holds at most 1 MiB, and only what it needs of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from virtmgr.domain.errors import ImageError

BLOCK = 512
_LARGEST_HEADER = 1024**2
_LATEST_TIME = 2**33
_NEEDED = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime")
XATTR = "SCHILY.xattr."
"""What an extended header of an extended attribute begins with, as GNU tar and star write it."""
_USER_XATTR = f"{XATTR}user."


class MemberType(StrEnum):
    FILE = "file"
    HARD_LINK = "hard link"
    SYMLINK = "symbolic link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    DIRECTORY = "directory"
    FIFO = "FIFO"


_TYPES = {
    b"0": MemberType.FILE,
    b"\0": MemberType.FILE,
    b"7": MemberType.FILE,
    b"1": MemberType.HARD_LINK,
    b"2": MemberType.SYMLINK,
    b"3": MemberType.CHARACTER_DEVICE,
    b"4": MemberType.BLOCK_DEVICE,
    b"5": MemberType.DIRECTORY,
    b"6": MemberType.FIFO,
}


@dataclass(frozen=True)
class Member:
    """One entry as the archive has it; ``name`` is neither checked nor normalised."""

    name: str
    type: MemberType
    mode: int
    uid: int
    gid: int
    size: int  # bytes of content that follow; 0 for all but files
    mtime: int
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()  # those of users (xattr(7)), the others are not read


class TarReader:
    """Iterates over ``(member, content)``; content not read by the caller is skipped."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._position = 0
        self._content_left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Every member in order.

        :raises ImageError: the archive is corrupt, truncated or uses what is not supported.
        """
        extended: dict[str, str] = {}
        extended_size = 0
        while True:
            header = self._read(BLOCK)
            if not any(header):
                return
            kind = header[156:157]
            size = _checked_size(header)
            if kind in b"xgLK":
                extended_size += BLOCK + size
                if extended_size > _LARGEST_HEADER:
                    raise _corrupt(f"has extended headers of {extended_size} bytes for one member")
                extended |= _extension(kind, self._extension_body(size))
                continue
            member = _member(header, size, extended)
            extended, extended_size = {}, 0
            self._content_left, self._padding = member.size, -member.size % BLOCK
            yield member, self._content()
            for _ in self._content():
                pass
            self._read(self._padding)

    def drain(self) -> None:
        """Read what follows the end of the archive, so that the whole stream has been seen."""
        for _ in self._chunks:
            pass

    def _extension_body(self, size: int) -> bytes:
        body = self._read(size)
        self._read(-size % BLOCK)
        return body

    def _content(self) -> Iterator[bytes]:
        while self._content_left:
            piece = self._piece(self._content_left)
            self._content_left -= len(piece)
            yield piece

    def _read(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            piece = self._piece(count)
            parts.append(piece)
            count -= len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, most: int) -> bytes:
        """Between 1 and ``most`` bytes."""
        while self._position >= len(self._buffer):
            chunk = next(self._chunks, None)
            if chunk is None:
                raise ImageError("the archive is truncated", code="image_truncated")
            self._buffer, self._position = chunk, 0
        piece = self._buffer[self._position : self._position + most]
        self._position += len(piece)
        return piece


def _member(header: bytes, size: int, extended: dict[str, str]) -> Member:
    type_ = _TYPES.get(header[156:157])
    if type_ is None:
        if header[156:157] == b"S":
            raise _sparse()
        raise _corrupt(f"has a member of unknown type {header[156:157]!r}")
    name = extended.get("path") or _name(header)
    if "\0" in name or "\0" in extended.get("linkpath", ""):
        raise _corrupt("has a name with a NUL character")
    if type_ is MemberType.FILE and name.endswith("/"):
        type_ = MemberType.DIRECTORY
    if "size" in extended:
        size = _decimal(extended["size"], "size")
    return Member(
        name=name,
        type=type_,
        mode=_number(header[100:108], "mode") & 0o7777,
        uid=_id(header[108:116], extended, "uid"),
        gid=_id(header[116:124], extended, "gid"),
        size=size if type_ is MemberType.FILE else 0,
        mtime=_time(header[136:148], extended),
        link=extended.get("linkpath") or _text(header[157:257]),
        device=_device(header, type_),
        xattrs=tuple(
            (key.removeprefix(XATTR), value.encode("utf-8", "surrogateescape"))
            for key, value in extended.items()
            if key.startswith(_USER_XATTR)
        ),
    )


def _corrupt(what: str) -> ImageError:
    return ImageError(
        f"the archive {what}", code="image_refused", hint="It is damaged or hostile; get it again."
    )


def _sparse() -> ImageError:
    return ImageError(
        "the archive has a sparse member, which is refused",
        code="image_refused",
        hint="Make the archive again without tar's --sparse.",
    )


def _checked_size(header: bytes) -> int:
    stored = _number(header[148:156], "checksum")
    rest = sum(header) - sum(header[148:156]) + 8 * 0x20
    if stored != rest:
        raise _corrupt("is corrupt: a header's checksum does not match")
    return _number(header[124:136], "size")


def _extension(kind: bytes, body: bytes) -> dict[str, str]:
    if kind == b"x":
        return _pax_records(body)
    if kind == b"L":
        return {"path": _text(body)}
    if kind == b"K":
        return {"linkpath": _text(body)}
    return {}  # global headers carry comments; nothing of theirs is needed


def _pax_records(body: bytes) -> dict[str, str]:
    """``length key=value\\n`` records."""
    records: dict[str, str] = {}
    position = 0
    while position < len(body) and body[position]:
        space = body.find(b" ", position, position + 20)
        digits = body[position:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        end = position + length
        record = body[space + 1 : end]
        key, equals, value = record.partition(b"=")
        if not position < end <= len(body) or not equals or not record.endswith(b"\n"):
            raise _corrupt("is corrupt: an extended header cannot be read")
        if key.startswith(b"GNU.sparse."):
            raise _sparse()
        if key in _NEEDED or key.startswith(_USER_XATTR.encode()):
            records[_decode(key)] = _decode(value[:-1])
        position = end
    return records


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _text(field: bytes) -> str:
    return _decode(field.split(b"\0", 1)[0])


def _name(header: bytes) -> str:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:
        return f"{_text(header[345:500])}/{name}"
    return name


def _number(field: bytes, what: str, *, negative: bool = False) -> int:
    """An octal number, or GNU's base-256 where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        if field[0] == 0x80:
            value = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if digits.strip(b"01234567"):
            raise _corrupt(f"is corrupt: {what} is no number")
        value = int(digits or b"0", 8)
    if value < 0 and not negative:
        raise _corrupt(f"is corrupt: {what} is negative")
    return value


def _decimal(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _corrupt(f"is corrupt: {what} is no number")
    return int(text)


def _id(field: bytes, extended: dict[str, str], key: str) -> int:
    return _decimal(extended[key], key) if key in extended else _number(field, key)


def _time(field: bytes, extended: dict[str, str]) -> int:
    if "mtime" in extended:
        whole = extended["mtime"].partition(".")[0]
        value = 0 if whole.startswith("-") else _decimal(whole, "mtime")
    else:
        value = _number(field, "mtime", negative=True)
    return min(max(value, 0), _LATEST_TIME)


def _device(header: bytes, type_: MemberType) -> tuple[int, int]:
    if type_ not in (MemberType.CHARACTER_DEVICE, MemberType.BLOCK_DEVICE):
        return (0, 0)
    return (_number(header[329:337], "major"), _number(header[337:345], "minor"))
