"""PCI slots that stay: a NIC or disk keeps its place, and so its name in the guest, for life."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SPARE = 8  # root ports that are left free for hot-plug at each start


def assign(before: Mapping[str, int], devices: Iterable[str]) -> dict[str, int]:
    """The root port (1 and up) of each of ``devices``.

    What had a port in ``before`` keeps it; others get the lowest free ones, in the order given.
    """
    wanted = tuple(devices)
    kept = {device: before[device] for device in wanted if device in before}
    taken = set(kept.values())
    port = 1
    for device in wanted:
        if device in kept:
            continue
        while port in taken:
            port += 1
        kept[device] = port
        taken.add(port)
    return kept


def ports(assigned: Mapping[str, int]) -> int:
    """How many root ports a domain with these devices has."""
    return max(assigned.values(), default=0) + SPARE
