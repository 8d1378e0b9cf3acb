"""In which order an agent's syncs were sent: one that comes late must not undo what came after.

A sync that an agent has given up may still be on its way, and reach the control plane after the
ones that followed it.
"""

from __future__ import annotations

from typing import Final

from virtmgr.domain.errors import Conflict
from virtmgr.domain.host import Host
from virtmgr.domain.sync import SyncOrder

OVERTAKEN: Final = "sync_overtaken"
"""The code of a refusal. An agent that hears it has not been overtaken by itself: it begins a new
run, and reports everything."""


def is_overtaken(host: Host, order: SyncOrder) -> bool:
    """Whether a sync that was sent later was taken in already.

    Runs are in no order of themselves. One that is neither the last one nor the one before is
    taken for a new one; where it is an old one of which nothing had been heard, the agent is
    refused next, and says everything in a new run.
    """
    if order.run == host.sync_run:
        return order.number <= host.sync_number
    return order.run == host.sync_run_before


def take(host: Host, order: SyncOrder | None) -> None:
    """Note that a sync is taken in.

    :param order: None: of an agent that does not tell it; it is taken as it comes.
    :raises Conflict: it is overtaken.
    """
    if order is None:
        return
    if is_overtaken(host, order):
        raise Conflict(
            f"sync {order.number} of host '{host.name}' came after a later one was taken in",
            code=OVERTAKEN,
            hint="nothing is to be done: what its agent has said since counts",
        )
    if order.run != host.sync_run:
        host.sync_run, host.sync_run_before = order.run, host.sync_run
    host.sync_number = order.number
