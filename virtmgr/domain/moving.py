"""What each of two hosts should have of a workload that is moved from one to the other. Pure."""

from __future__ import annotations

import hashlib

from virtmgr.domain.migration import Migration, MigrationMode, Phase
from virtmgr.domain.sync import Arrival, DesiredWorkload, Incoming, MigrationLimits, Outgoing
from virtmgr.domain.workload import PowerState


def at_its_host(
    wish: DesiredWorkload,
    migration: Migration | None,
    target_url: str = "",
    limits: MigrationLimits | None = None,
) -> DesiredWorkload:
    """What the host that the workload belongs to should have of it.

    :param target_url: where the target's agent offers streams.
    :param limits: of its cluster.
    """
    if migration is None:
        return wish
    if migration.mode is MigrationMode.LIVE:
        going = migration.phase is Phase.MIGRATING
        outgoing = _outgoing(migration, target_url, limits or MigrationLimits())
        return wish.model_copy(update={"outgoing": outgoing}) if going else wish
    if migration.phase in (Phase.STOPPING, Phase.COPYING):
        return wish.model_copy(update={"state": PowerState.STOPPED})
    if migration.phase is Phase.STARTING:
        return wish.model_copy(update={"arrival": Arrival(id=migration.id)})
    return wish


def _outgoing(migration: Migration, target_url: str, limits: MigrationLimits) -> Outgoing:
    return Outgoing(
        id=migration.id,
        target_host_id=migration.target_host_id or "",
        target_url=target_url,
        ticket=migration.ticket or "",
        cancelled=migration.cancelling,
        limits=limits,
    )


def at_target(wish: DesiredWorkload, migration: Migration) -> DesiredWorkload:
    """What the target should have of a workload that comes live and is the source's yet.

    It publishes no ports: nothing answers there until the workload runs.
    """
    if migration.phase is Phase.RETREATING:
        return wish.model_copy(update={"deleting": True})
    incoming = Incoming(
        id=migration.id,
        source_host_id=migration.source_host_id or "",
        ticket_hash=ticket_hash(migration.ticket or ""),
    )
    spec = wish.spec.model_copy(update={"ports": ()})
    return wish.model_copy(update={"incoming": incoming, "spec": spec})


def ticket_hash(ticket: str) -> str:
    """What the target knows of the secret that the source shows it."""
    return hashlib.sha256(ticket.encode()).hexdigest()


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
