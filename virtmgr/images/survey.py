"""Looking through a layer before it is taken: the rules, its diff_id, and what init it has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from virtmgr.domain.compression import Compression, decompressed
from virtmgr.domain.image import ContainerConfig
from virtmgr.domain.layer import Action, LayerLimits, LayerRules
from virtmgr.domain.tar import Member, TarReader

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
_INITS = ("sbin/init", "usr/sbin/init", *_SYSTEMD)
_POWER_OFF = {"systemd": "SIGRTMIN+3", "busybox": "SIGUSR2", "sysvinit": "SIGPWR"}


@dataclass(frozen=True)
class Survey:
    """What one layer turned out to be."""

    diff_id: str
    size: int  # bytes of the uncompressed tar
    inits: dict[str, str]  # path of an init → what it is: systemd, busybox, sysvinit


def survey_layer(
    chunks: Iterable[bytes], compression: Compression, stored_size: int, limits: LayerLimits
) -> Survey:
    """Read a whole layer under the rules of ``domain.layer``.

    :raises ImageError: it must be refused.
    """
    digest = _Digest(decompressed(chunks, compression, limit=limits.uncompressed(stored_size)))
    reader = TarReader(digest)
    rules = LayerRules(limits)
    inits: dict[str, str] = {}
    for member, _ in reader:
        step = rules.admit(member)
        if step.action is Action.CREATE and step.path in _INITS:
            inits[step.path] = _init_of(step.path, member)
    reader.drain()
    return Survey(f"sha256:{digest.hash.hexdigest()}", digest.size, inits)


def system_config(inits: dict[str, str]) -> ContainerConfig:
    """How a system container boots with the init that was found (``/sbin/init`` if none was)."""
    path = next((path for path in _INITS if path in inits), "sbin/init")
    kind = "systemd" if any(found in inits for found in _SYSTEMD) else inits.get(path, "sysvinit")
    return ContainerConfig(
        init="system",
        command=(f"/{path}",),
        env=(PATH,),  # what kind of container it is, the driver says
        stop_signal=_POWER_OFF[kind],
    )


def _init_of(path: str, member: Member) -> str:
    text = f"{path} {member.link}"
    return next((kind for kind in ("systemd", "busybox") if kind in text), "sysvinit")


class _Digest:
    """Passes chunks through, hashing and counting them."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.hash = hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.hash.update(chunk)
            self.size += len(chunk)
            yield chunk
