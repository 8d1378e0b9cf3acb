"""What a file-system layer may hold (OCI image-spec layer.md), decided member by member.

The same rules are applied when an image is imported and again when a host unpacks it. They
refuse what could reach out of the layer or harm the host: absolute names but that of the root
itself (a container's root has mode 0755 whatever an archive says), ``..``, members
beneath links, links that climb out, hard links to what the layer does not hold, device nodes,
owners outside a container's 65,536 ids, and absurd counts and sizes. Set-user-id bits are kept:
a container's root is an unprivileged id of its host. Of extended attributes those of users are
kept; the others (file capabilities among them) and ACLs are dropped. Names may hold any character
but ``/`` and NUL, as files' names do. A layer is judged by itself: a name that lies beneath a link
of an earlier layer becomes a directory that hides the link, and is never followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from virtmgr.domain.errors import ImageError
from virtmgr.domain.tar import Member, MemberType

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_AUFS_PREFIX = ".wh..wh."
_STANDARD_DEVICES = {
    "console": (5, 1),
    "full": (1, 7),
    "null": (1, 3),
    "ptmx": (5, 2),
    "random": (1, 8),
    "tty": (5, 0),
    "urandom": (1, 9),
    "zero": (1, 5),
}


@dataclass(frozen=True)
class LayerLimits:
    """The most that one layer may have."""

    size: int = 64 * 1024**3  # bytes of the uncompressed archive
    members: int = 2_000_000  # with the directories that only their names imply
    names: int = 512 * 1024**2  # bytes of all these members' names
    depth: int = 128
    highest_id: int = 65535
    free_size: int = 1024**3  # up to here the ratio does not matter
    ratio: int = 200  # uncompressed : compressed

    def uncompressed(self, stored: int) -> int:
        """The most bytes that an archive of ``stored`` compressed bytes may expand to."""
        return min(self.size, max(self.free_size, stored * self.ratio))


class Action(StrEnum):
    CREATE = "create"
    SKIP = "skip"  # harmless and of no use in a container
    WHITEOUT = "whiteout"  # ``path`` is removed from the layers beneath
    OPAQUE = "opaque"  # directory ``path`` hides the layers beneath


@dataclass(frozen=True)
class Step:
    """What to do for one member. Paths are relative, normalised, ``""`` for the root."""

    action: Action
    path: str
    target: str = ""  # hard links: the path linked to; symbolic links: the text
    replaces: bool = False  # something other than a directory is at ``path`` already
    hides: bool = False  # a directory that must be opaque, since it was whited out


class LayerRules:
    """Admits a layer's members one after the other and remembers what the layer then holds."""

    def __init__(self, limits: LayerLimits | None = None) -> None:
        self._limits = limits or LayerLimits()
        self._held: dict[str, MemberType | Action] = {"": MemberType.DIRECTORY}
        self._count = 0
        self._bytes = 0
        self._names = 0

    def admit(self, member: Member) -> Step:
        """What to do for ``member``.

        :raises ImageError: the layer must be refused.
        """
        path = self._path(member.name)
        self._count_name(path)
        self._charge(member)
        directory, _, last = path.rpartition("/")
        if f"/{_AUFS_PREFIX}" in f"/{path}" and last != OPAQUE:
            return Step(Action.SKIP, "")  # bookkeeping of AUFS, which old images still have
        self._check_parents(path)
        if last.startswith(WHITEOUT):
            return self._whiteout(directory, last)
        if _is_standard_device(path, member):
            return Step(Action.SKIP, path)
        if member.type is MemberType.CHARACTER_DEVICE and member.device == (0, 0):
            return self._hide(path)
        return self._create(path, member)

    def holds(self, path: str) -> bool:
        """Whether the layer so far has something other than a whiteout at ``path``."""
        return isinstance(self._held.get(path), MemberType)

    def _charge(self, member: Member) -> None:
        self._bytes += member.size
        if self._bytes > self._limits.size:
            raise _refuse(f"its files have more than {self._limits.size} bytes")
        highest = self._limits.highest_id
        if member.uid > highest or member.gid > highest:
            raise _refuse(
                f"{member.name!r} belongs to {member.uid}:{member.gid}, "
                f"and a container has ids 0 to {highest} only"
            )

    def _count_name(self, path: str) -> None:
        self._count += 1
        self._names += len(path)
        if self._count > self._limits.members:
            raise _refuse(f"it has more than {self._limits.members} members")
        if self._names > self._limits.names:
            raise _refuse(f"its members' names have more than {self._limits.names} bytes")

    def _path(self, name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        longest = max((_length(part) for part in parts), default=0)
        if longest > 255 or _length(name) > 4095 or len(parts) > self._limits.depth:
            raise _refuse(f"the name {name[:80]!r}… is too long or too deep")
        if name.startswith("/") and parts:  # "/" alone is the root, as "./" is
            raise _refuse(f"the name {name!r} is absolute")
        if ".." in parts:
            raise _refuse(f"the name {name!r} has '..' in it")
        return "/".join(parts)

    def _check_parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        missing = []
        while self._held.get(parent) is not MemberType.DIRECTORY:
            held = self._held.get(parent)
            if held is not None and held is not Action.WHITEOUT:
                raise _refuse(f"{path!r} lies beneath {parent!r}, which is a {held}")
            if parent.rpartition("/")[2].startswith(WHITEOUT):
                raise _refuse(f"{path!r} lies beneath {parent!r}, which is a whiteout")
            self._count_name(parent)
            missing.append(parent)
            parent = parent.rpartition("/")[0]
        for made in missing:
            if self._held.get(made) is Action.WHITEOUT:
                raise _refuse(f"{path!r} lies beneath {made!r}, which the same layer removes")
            self._held[made] = MemberType.DIRECTORY

    def _whiteout(self, directory: str, last: str) -> Step:
        if last == OPAQUE:
            return Step(Action.OPAQUE, directory)
        name = last.removeprefix(WHITEOUT)
        if name in ("", ".", ".."):
            raise _refuse(f"the whiteout {last!r} in {directory!r} names no file")
        return self._hide(f"{directory}/{name}" if directory else name)

    def _hide(self, path: str) -> Step:
        held = self._held.get(path)
        if held is MemberType.DIRECTORY:
            return Step(Action.OPAQUE, path)
        if held is not None:
            return Step(Action.SKIP, path)
        self._held[path] = Action.WHITEOUT
        return Step(Action.WHITEOUT, path)

    def _create(self, path: str, member: Member) -> Step:
        type_ = member.type
        if type_ in (MemberType.CHARACTER_DEVICE, MemberType.BLOCK_DEVICE):
            major, minor = member.device
            raise _refuse(f"{path!r} is a {type_} ({major}:{minor})")
        held = self._held.get(path)
        if held is MemberType.DIRECTORY and type_ is not MemberType.DIRECTORY:
            raise _refuse(f"{path!r} is a directory first and then a {type_}")
        target = ""
        if type_ is MemberType.SYMLINK:
            target = _symlink_target(path, member.link)
        elif type_ is MemberType.HARD_LINK:
            target, type_ = self._hard_link_target(path, member.link)
        self._held[path] = type_
        return Step(
            Action.CREATE,
            path,
            target=target,
            replaces=held is not None and held is not MemberType.DIRECTORY,
            hides=held is Action.WHITEOUT and type_ is MemberType.DIRECTORY,
        )

    def _hard_link_target(self, path: str, link: str) -> tuple[str, MemberType]:
        target = self._path(link)
        held = self._held.get(target)
        if target == path or held not in (MemberType.FILE, MemberType.SYMLINK, MemberType.FIFO):
            raise _refuse(f"{path!r} is a hard link to {link!r}, which is no file of this layer")
        assert isinstance(held, MemberType)
        return target, held


def _symlink_target(path: str, link: str) -> str:
    if not link or _length(link) > 4095:
        raise _refuse(f"the symbolic link {path!r} has an empty or too long target")
    if link.startswith("/"):
        return link  # resolves within the container's own root
    level = path.count("/")
    for part in link.split("/"):
        level += -1 if part == ".." else part not in ("", ".")
        if level < 0:
            raise _refuse(f"the symbolic link {path!r} to {link!r} leads out of the root")
    return link


def _length(name: str) -> int:
    return len(name.encode(errors="surrogateescape"))


def _is_standard_device(path: str, member: Member) -> bool:
    directory, _, name = path.rpartition("/")
    return (
        directory == "dev"
        and member.type is MemberType.CHARACTER_DEVICE
        and _STANDARD_DEVICES.get(name) == member.device
    )


def _refuse(why: str) -> ImageError:
    return ImageError(
        f"the layer is refused: {why}",
        code="image_refused",
        hint="The image is damaged or hostile; get it from a source that you trust.",
    )
