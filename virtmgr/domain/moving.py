"""What each of two hosts should have of a workload that is moved from one to the other. Pure."""

from __future__ import annotations

from virtmgr.domain.migration import Migration, Phase
from virtmgr.domain.sync import Arrival, DesiredWorkload
from virtmgr.domain.workload import PowerState


def at_its_host(wish: DesiredWorkload, migration: Migration | None) -> DesiredWorkload:
    """What the host that the workload belongs to should have of it."""
    if migration is None:
        return wish
    if migration.phase in (Phase.STOPPING, Phase.COPYING):
        return wish.model_copy(update={"state": PowerState.STOPPED})
    if migration.phase is Phase.STARTING:
        return wish.model_copy(update={"arrival": Arrival(id=migration.id)})
    return wish


def left_behind(wish: DesiredWorkload, migration: Migration) -> DesiredWorkload:
    """What the source should have of a workload that is the target's already: its disks, at rest,
    until the target has taken it up; then nothing."""
    if migration.phase is Phase.CLEANING:
        return wish.model_copy(update={"deleting": True})
    spec = wish.spec.model_copy(update={"ports": ()})
    resting = {
        "state": PowerState.STOPPED,
        "generation": migration.generation - 1,  # the one that it has acted on
        "spec": spec,
        "nics": (),  # its addresses are in use elsewhere
    }
    return wish.model_copy(update=resting)
