"""How full the host's own file systems are: those that virtmgr needs and keeps no disks on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virtmgr.domain.sync import ObservedFileSystem

_PLACES: Final = ("/", "/var", "/var/log")  # programs, what libvirt keeps, logs


@dataclass(frozen=True)
class Place:
    """A directory, and the file system that it is on; amounts are bytes."""

    path: str
    device: int
    capacity: int
    used: int
    read_only: bool = False


def own_file_systems(data_directory: Path, pools: Iterable[str]) -> tuple[ObservedFileSystem, ...]:
    """Those of the system and of the agent's state.

    :param pools: the directories of pools, which are told of apart.
    :raises OSError: one cannot be looked at.
    """
    places = [look(path) for path in (*_PLACES, str(data_directory)) if Path(path).exists()]
    return apart(places, [look(pool) for pool in pools])


def look(path: str) -> Place:
    """What the kernel says of it. What is kept for root counts as used, as in pools.

    :raises OSError: there is no such directory.
    """
    space = os.statvfs(path)
    capacity = space.f_blocks * space.f_frsize
    return Place(
        path=path,
        device=Path(path).stat().st_dev,
        capacity=capacity,
        used=capacity - space.f_bavail * space.f_frsize,
        read_only=bool(space.f_flag & os.ST_RDONLY),
    )


def apart(places: Iterable[Place], pools: Iterable[Place]) -> tuple[ObservedFileSystem, ...]:
    """Each file system once, by the first place on it. One that nobody can write to is as full as
    it should be."""
    known = {pool.device for pool in pools}
    found = []
    for place in places:
        if place.device not in known and place.capacity and not place.read_only:
            found.append(
                ObservedFileSystem(path=place.path, capacity=place.capacity, used=place.used)
            )
        known.add(place.device)
    return tuple(found)
