"""Moving workloads to other hosts: what goes where, and the rows that carry it out.

``propose`` decides and writes nothing; ``begin`` claims the target and makes the row, in one
transaction. ``migration_worker`` does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from virtmgr.domain.cpu import HOST
from virtmgr.domain.errors import Conflict, IllegalTransition, NotFound, VirtmgrError
from virtmgr.domain.host import Host
from virtmgr.domain.ids import new_id
from virtmgr.domain.live_migration import (
    Wish,
    choosy_first,
    findings,
    live_targets,
    not_taken,
    settled,
)
from virtmgr.domain.migration import (
    AT_SOURCE,
    Downtime,
    Migration,
    MigrationMode,
    Phase,
    live_downtime,
    obstacle,
)
from virtmgr.domain.migration import expected_downtime as downtime_of
from virtmgr.domain.operation import Operation
from virtmgr.domain.scheduling import Decision, PlacementRequest
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import Kind, Reason, Workload
from virtmgr.ports.driver import Feature
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services import features, placement
from virtmgr.services.being_copied import refuse_while_copied
from virtmgr.services.container import Services
from virtmgr.services.context import Context
from virtmgr.services.hosts import find as find_host
from virtmgr.services.live_steps import begin_preparing, is_busy
from virtmgr.services.migration_steps import BY_REQUEST, give_up, news_for_source
from virtmgr.services.pinned import pinned
from virtmgr.services.references import placement_request, resolve


@dataclass(frozen=True)
class Proposal:
    """Where one workload would go, or why it cannot."""

    workload: Workload
    downtime: Downtime
    mode: MigrationMode = MigrationMode.COLD
    not_live: tuple[Reason, ...] = ()  # why a VM that runs is moved cold, or not at all
    request: PlacementRequest | None = None
    decision: Decision | None = None
    why_not: Reason | None = None

    @property
    def target_id(self) -> str | None:
        return self.decision.host_id if self.decision is not None else None


@dataclass(frozen=True)
class Moved:
    """One that is on its way."""

    proposal: Proposal
    migration: Migration
    operation: Operation


def propose(
    context: Context,
    workloads: Sequence[Workload],
    source: Host,
    to: Host | None = None,
    wish: Wish = Wish.EITHER,
) -> list[Proposal]:
    """Where each of a host's workloads would go, and how, placed together as one batch.

    :param to: the only host that they may go to.
    """
    checks = Checks(context, source)
    found = [asked(context, workload, to) for workload in workloads]
    if wish is not Wish.COLD:
        found = [_with_live_hosts(one, checks) for one in found]
    requests = [one.request for one in found if one.request is not None]
    decisions = placement.decide(
        context.uow,
        choosy_first(requests),
        known=context.services.known_hosts,
        alone=context.overtaken,
        moving_from=source.id,
    )
    decided = {decision.request_id: decision for decision in decisions}
    placed = [
        one if one.request is None else _decided(one, decided[one.request.id]) for one in found
    ]
    return [_with_mode(one, checks, wish) for one in placed]


class Checks:
    """What stands against moving workloads of one host live, read once for all of them.

    :param hosts: all that there are, where they have been read.
    """

    def __init__(self, context: Context, source: Host, hosts: Sequence[Host] | None = None) -> None:
        self._uow = context.uow
        self._source = source
        cluster = context.uow.clusters.get(source.cluster_id)
        self._cpu = cluster.cpu if cluster is not None else HOST
        self._hosts = {
            host.id: host
            for host in (context.uow.hosts.all() if hosts is None else hosts)
            if host.cluster_id == source.cluster_id and host.id != source.id
        }
        self._volumes: dict[str, Sequence[Volume]] = {}

    def findings(self, workload: Workload, target_id: str) -> tuple[Reason, ...]:
        target = self._hosts.get(target_id)
        if target is None:  # it may go nowhere else than within its cluster
            return ()
        return findings(workload, self._volumes_of(workload), self._source, target, self._cpu)

    def refusal(self, workload: Workload) -> Reason | None:
        """Why it goes to no host live, as the first of them has it; None: there is none."""
        first = next(iter(self._hosts), None)
        if first is None:
            return None
        return settled(workload, Wish.LIVE, self.findings(workload, first))[1]

    def live_hosts(self, workload: Workload) -> frozenset[str]:
        """The hosts against which nothing stands."""
        volumes = self._volumes_of(workload)
        hosts = self._hosts.values()
        return live_targets(workload, volumes, self._source, hosts, self._cpu)

    def _volumes_of(self, workload: Workload) -> Sequence[Volume]:
        if workload.kind is not Kind.VM:  # whatever it has, it does not go live
            return ()
        if workload.id not in self._volumes:
            self._volumes[workload.id] = self._uow.volumes.of_workload(workload.id)
        return self._volumes[workload.id]


def _with_live_hosts(proposal: Proposal, checks: Checks) -> Proposal:
    if proposal.request is None:
        return proposal
    live = checks.live_hosts(proposal.workload)
    return replace(proposal, request=replace(proposal.request, live_host_ids=live))


def _with_mode(proposal: Proposal, checks: Checks, wish: Wish) -> Proposal:
    """The proposal, live where that is wished for and possible; refused where it may not be
    cold."""
    target_id, workload = proposal.target_id, proposal.workload
    if proposal.why_not is not None or target_id is None:
        return proposal
    why = checks.findings(workload, target_id)
    if why and proposal.request is not None and proposal.decision is not None:
        why = (*why, *not_taken(proposal.request, proposal.decision))
    mode, refusal = settled(workload, wish, why)
    if refusal is not None:
        return replace(proposal, not_live=why, why_not=refusal, decision=None, mode=mode)
    if mode is MigrationMode.LIVE:
        return replace(proposal, mode=mode, downtime=live_downtime(workload, proposal.downtime))
    cold = obstacle(workload)
    if cold is not None:
        return replace(proposal, not_live=why, why_not=cold, decision=None)
    return replace(proposal, not_live=why)


def asked(context: Context, workload: Workload, to: Host | None) -> Proposal:
    """What the scheduler would be asked for the workload's move, or why it is not moved at all.

    :param to: the only host that it may go to.
    """
    uow = context.uow
    volumes = sum(volume.size for volume in uow.volumes.of_workload(workload.id))
    bare = Proposal(workload, downtime_of(workload, workload.status.usage, volumes))
    why_not = obstacle(workload, MigrationMode.LIVE)
    if why_not is not None:
        return replace(bare, why_not=why_not)
    try:
        refuse_while_copied(uow, workload, "move")
        features.require(uow, workload, Feature.MOVE)
        nics = uow.nics.of_workloads([workload.id]).get(workload.id, ())
        references = resolve(uow, workload.project_id, pinned(workload, workload.spec, nics))
    except VirtmgrError as error:
        why = Reason.of(error)
        return replace(bare, why_not=why)
    if references.host is not None:
        why = Reason(
            code="pinned",
            message=f"it may only run on host {references.host.name}",
            hint="it was created with placement.host, which is fixed; stop or delete it",
        )
        return replace(bare, why_not=why)
    request = placement_request(workload.project_id, workload.id, references)
    request = replace(
        request,
        host_id=to.id if to is not None else None,
        volume_host_ids=frozenset(),  # its volumes go with it
        vcpus=workload.claim_vcpus,
        memory=workload.claim_memory,
        disk=workload.claim_disk,
        from_reserve=True,  # a move takes no more room than there is taken
        avoid=frozenset(
            one.lost_host_id for one in uow.failovers.open_of(workload.id) if one.lost_host_id
        ),
    )
    return replace(bare, request=request)


def _decided(proposal: Proposal, decision: Decision) -> Proposal:
    if decision.host_id is not None:
        return replace(proposal, decision=decision)
    why = Reason(
        code="no_placement",
        message=decision.explanation.summary,
        hint="free capacity on other hosts, or add one",
    )
    return replace(proposal, decision=decision, why_not=why)


def begin(
    context: Context,
    proposals: Sequence[Proposal],
    source: Host,
    drain: Operation | None = None,
    rebalancing: Operation | None = None,
) -> list[Moved]:
    """Claim what the proposals ask for and make a migration of each.

    :param drain: the operation that they are part of; so is ``rebalancing``.
    :raises placement.Overtaken: another placement was faster; try again in a new unit.
    """
    able = [one for one in proposals if one.target_id is not None]
    placement.commit(
        context.uow,
        [one.request for one in able if one.request is not None],
        [one.decision for one in able if one.decision is not None],
    )
    return [_begin(context, one, source, drain, rebalancing) for one in able]


def _begin(
    context: Context,
    proposal: Proposal,
    source: Host,
    drain: Operation | None,
    rebalancing: Operation | None,
) -> Moved:
    workload, decision = proposal.workload, proposal.decision
    if decision is None or decision.host_id is None:
        raise AssertionError("only what has a target is begun")
    uow = context.uow
    target = uow.hosts.get(decision.host_id)
    name = target.name if target is not None else ""
    operation = context.begin(
        "move",
        "workload",
        workload,
        parameters={"from": source.name, "to": name, "mode": proposal.mode.value},
    )
    migration = Migration(
        id=new_id(),
        workload_id=workload.id,
        project_id=workload.project_id,
        source_host_id=source.id,
        target_host_id=decision.host_id,
        mode=proposal.mode,
        operation_id=operation.id,
        drain_id=drain.id if drain is not None else None,
        rebalance_id=rebalancing.id if rebalancing is not None else None,
        claim_vcpus=workload.claim_vcpus,
        claim_memory=workload.claim_memory,
        claim_disk=workload.claim_disk,
        placement=decision.explanation.to_json(),
        created_at=context.now,
        updated_at=context.now,
    )
    uow.migrations.add(migration)
    context.record(
        "workload.move_requested",
        workload,
        f"from host {source.name} to host {name}",
        operation_id=operation.id,
        host_id=source.id,
        data={"migration": migration.id, "to": name},
    )
    return Moved(proposal, migration, operation)


def move(
    context: Context, workload: Workload, to: str | None = None, wish: Wish = Wish.LIVE_IF_VM
) -> Moved:
    """Move a locked workload to another host: the one that ``to`` names, or the best.

    :raises NotFound: there is no such host.
    :raises IllegalTransition: the workload cannot be moved now.
    :raises NoPlacement: no other host takes it; the explanation is in its ``detail``.
    :raises placement.Overtaken: another placement was faster; try again in a new unit.
    """
    target = find_host(context, to, "to") if to is not None else None
    source = context.uow.hosts.get(workload.host_id) if workload.host_id is not None else None
    if source is None:
        raise Conflict(f"workload {workload.name!r} is on no host")
    if target is not None and target.id == source.id:
        raise Conflict(
            f"workload {workload.name!r} is on host {source.name!r} already",
            code="is_there",
            field="to",
            hint="name another host, or none",
        )
    (proposal,) = propose(context, [workload], source, target, wish)
    if proposal.decision is None and proposal.why_not is not None:
        why = proposal.why_not
        raise IllegalTransition(
            f"cannot move workload {workload.name!r}: {why.message}",
            code=why.code,
            hint=why.hint,
        )
    if proposal.target_id is None and proposal.decision is not None and proposal.request:
        raise placement.refusal(proposal.request, proposal.decision)
    moved = begin(context, [proposal], source)[0]
    live = moved.migration.mode is MigrationMode.LIVE
    if live and not is_busy(context.uow, moved.migration):  # else a worker does, when there is room
        begin_preparing(context.services, context.uow, moved.migration, workload, context.now)
    return moved


def list_(context: Context, query: ListQuery) -> Page[Migration]:
    """Migrations of the projects that may be seen, newest first by default."""
    return context.uow.migrations.list(query)


def find(context: Context, id: str) -> Migration:
    """A migration that the principal may see.

    :raises NotFound: there is none.
    """
    found = context.uow.migrations.get(id)
    if found is None or not context.shows(found.project_id):
        raise NotFound(f"migration {id!r} does not exist")
    return found


def cancel(context: Context, id: str) -> Migration:
    """Give a migration up: the workload stays on its host. Twice is once.

    :raises NotFound: there is none.
    :raises IllegalTransition: the workload belongs to the target already.
    """
    found = find(context, id)
    context.lock_hosts(found.source_host_id, found.target_host_id)
    context.uow.workloads.lock(found.workload_id)
    locked = context.uow.migrations.lock(found.id)
    if locked is None:
        raise NotFound(f"migration {id!r} does not exist")
    if locked.phase is Phase.RETREATING:
        return locked
    if locked.phase not in AT_SOURCE:
        raise IllegalTransition(
            f"cannot cancel migration {id}: it is {locked.phase}, and the workload is its "
            "new host's"
            if locked.phase is not Phase.FAILED
            else f"migration {id} has failed",
            hint="move the workload back with another move",
        )
    stop(context.services, context, locked)
    return locked


def stop(services: Services, context: Context, migration: Migration) -> None:
    """Give a locked migration up that may be: at once, or as soon as its worker looks."""
    workload = context.uow.workloads.lock(migration.workload_id)
    if migration.phase is Phase.PLANNED and workload is not None:
        give_up(services, context.uow, migration, workload, context.now, dict(BY_REQUEST))
    elif migration.phase in AT_SOURCE:
        migration.cancelling = True
        if migration.phase is Phase.MIGRATING and workload is not None:
            news_for_source(services, context.uow, migration, workload)  # which says how it ended
