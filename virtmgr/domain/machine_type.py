"""The machine type that VMs of a cluster get, so that they can run on each of its hosts. Pure.

QEMU makes a machine of an older version as that version did (``pc-q35-7.2``); an older QEMU has no
newer ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

_VERSIONED: Final = re.compile(r"pc-q35-(?:rhel)?(\d+(?:\.\d+)+)")


def versioned(names: Iterable[str]) -> tuple[str, ...]:
    """Those that mean one version, the newest last; neither aliases nor a distribution's variants
    that say none."""
    return tuple(sorted((name for name in set(names) if _VERSIONED.fullmatch(name)), key=_age))


def newest_common(types: Iterable[Sequence[str]]) -> str | None:
    """The newest that every host offers; None: there is none.

    :param types: what each host offers; one that offers nothing runs no VMs, and does not count.
    """
    offered = [frozenset(each) for each in types if each]
    common = versioned(frozenset.intersection(*offered)) if offered else ()
    return common[-1] if common else None


def _age(name: str) -> tuple[int, ...]:
    found = _VERSIONED.fullmatch(name)
    return tuple(map(int, found[1].split("."))) if found is not None else ()
