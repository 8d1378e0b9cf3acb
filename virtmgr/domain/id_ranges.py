"""User-id ranges of containers: 65,536 ids of each container's own (user_namespaces(7))."""

from __future__ import annotations

from collections.abc import Container

RANGE_SIZE = 65536
FIRST = 16 * RANGE_SIZE  # above what distributions give to users in /etc/subuid by default
LAST = 2**31 - RANGE_SIZE  # programs exist that keep ids in signed 32-bit numbers


def free_range(taken: Container[int]) -> int:
    """The lowest free base.

    :raises ValueError: all (some 32,000) are taken.
    """
    for base in range(FIRST, LAST, RANGE_SIZE):
        if base not in taken:
            return base
    raise ValueError("every user-id range of this host is in use")
