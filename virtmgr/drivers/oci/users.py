"""Who a command runs as: ``user[:group]`` resolved against the container's own /etc."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.oci import syscalls

_LARGEST_FILE = 4 * 1024**2


@dataclass(frozen=True)
class User:
    """Ids inside the container."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def read_in_root(root: int, path: str, limit: int = _LARGEST_FILE) -> bytes | None:
    """A regular file's content, never outside ``root``; None if it is not there.

    :raises OSError: it cannot be read, or is larger than ``limit`` bytes (EFBIG).
    """
    try:
        file = syscalls.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, "larger than it may be", path)
    return content


def _entries(root: int, path: str, fields: int) -> list[list[str]]:
    text = (read_in_root(root, path) or b"").decode("utf-8", "replace")
    rows = (line.split(":") for line in text.splitlines())
    return [row for row in rows if len(row) >= fields and row[2].isdecimal()]


def resolve(root: int, text: str) -> User:
    """The user that ``text`` means: name or number, and after ``:`` a group, name or number.

    Empty means root. A number needs no entry; the groups of a name come from /etc/group.

    :raises DriverError: there is no such user or group in the container.
    """
    name, _, group = text.partition(":")
    passwd = _entries(root, "/etc/passwd", 6)
    by_name = {row[0]: row for row in reversed(passwd)}
    by_id = {int(row[2]): row for row in reversed(passwd)}
    row = by_name.get(name or "root") or (by_id.get(int(name)) if name.isdecimal() else None)
    if row is None and name and not name.isdecimal():
        raise DriverError(
            f"cannot run as user {name!r}: the container's /etc/passwd has no such user",
            code="no_such_user",
            hint="give a user of the image, or a number",
        )
    uid = int(row[2]) if row is not None else int(name or 0)
    gid = int(row[3]) if row is not None and row[3].isdecimal() else 0
    groups = _entries(root, "/etc/group", 4)
    home = row[5] if row is not None else "/"
    if group:
        return User(uid, _group_id(group, groups), (), home)
    member = row[0] if row is not None else None
    if member is None:
        return User(uid, gid, (), home)
    extra = {int(entry[2]) for entry in groups if member in entry[3].split(",")}
    return User(uid, gid, (gid, *sorted(extra - {gid})), home)


def _group_id(group: str, groups: list[list[str]]) -> int:
    for entry in groups:
        if entry[0] == group:
            return int(entry[2])
    if group.isdecimal():
        return int(group)
    raise DriverError(
        f"cannot run in group {group!r}: the container's /etc/group has no such group",
        code="no_such_user",
        hint="give a group of the image, or a number",
    )
