"""Workloads: create, power verbs and delete. Changes of the spec are in ``workload_changes``.

Every function works in the unit of work that it is given, so that spec, claim, quota, addresses,
operation and event are committed together; the caller commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from virtmgr.domain.errors import Conflict, InvalidRequest, NameTaken, NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import NetworkType
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.quota import amounts_of
from virtmgr.domain.scheduling import Decision, PlacementRequest
from virtmgr.domain.states import Outcome, check_verb
from virtmgr.domain.values import Name, Value
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import PowerState, State, Workload, WorkloadSpec
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import ipam, overlays, placement
from virtmgr.services.being_copied import refuse_while_copied
from virtmgr.services.context import Context
from virtmgr.services.maintenance import refuse_in_maintenance
from virtmgr.services.operation_end import end
from virtmgr.services.references import References, placement_request, resolve

MOST_AT_ONCE = 1000


class _Named(Value):
    name: Name


@dataclass(frozen=True)
class Changed:
    """A workload that was changed, and the operation that carries it out."""

    workload: Workload
    operation: Operation
    decision: Decision | None = None


def find(context: Context, reference: str) -> Workload:
    """The project's workload by id or name.

    :raises NotFound: there is none.
    """
    workload = context.uow.workloads.find(context.own_project.id, reference)
    if workload is None:
        raise unknown(reference)
    return workload


def lock(context: Context, reference: str, *, every_host: bool = False) -> Workload:
    """The same, to be changed, its host locked before it.

    :param every_host: lock all hosts, for what claims another one.
    :raises placement.Overtaken: it was moved meanwhile; try again in a new unit.
    """
    found = find(context, reference)
    host_id = found.host_id
    if every_host:
        context.uow.hosts.all(locked=True)
    else:
        context.lock_hosts(host_id)
    locked = context.for_change(context.uow.workloads, found, f"workload {reference!r}")
    if locked.host_id != host_id:
        raise placement.Overtaken(locked.host_id)
    return locked


def unknown(reference: str) -> NotFound:
    """The error for a workload that is not in the project."""
    return NotFound(
        f"there is no workload {reference!r} in this project",
        code="workload_not_found",
        hint="see 'virtmgr list'",
    )


def refuse_taken(context: Context, *names: str) -> None:
    """Say which name it is; the database, which has the last word, does not.

    :raises NameTaken: a workload of the project has one of them.
    """
    name = context.uow.workloads.first_called(context.own_project.id, names)
    if name is not None:
        raise NameTaken(
            f"there is a workload {name!r} in this project already",
            field="name",
            hint="choose another name, or rename or delete that one",
        )


def create(context: Context, spec: WorkloadSpec, count: int = 1) -> list[Changed]:
    """Create ``count`` workloads as one batch: all are placed, or none.

    With a ``count`` above 1 they are named ``NAME-1`` … ``NAME-N``.

    :raises QuotaExceeded: the project's quota does not hold them.
    :raises NoPlacement: some fit on no host; the explanation is in its ``detail``.
    :raises placement.Overtaken: another placement was faster; try again in a new unit.
    """
    if count > 1 and (spec.volumes or any(nic.address != "auto" for nic in spec.nics)):
        raise InvalidRequest(
            "several workloads at once cannot share a volume or a fixed address",
            field="count",
            hint="leave volumes and addresses out, or create them one by one",
        )
    references = resolve(context.uow, context.own_project.id, spec)
    return insert(context, [named(references, name) for name in names_of(spec.name, count)])


def names_of(name: str, count: int) -> list[str]:
    """What ``count`` workloads are called that are made together.

    :raises InvalidRequest: they are too many.
    """
    if not 1 <= count <= MOST_AT_ONCE:
        raise InvalidRequest(f"count is between 1 and {MOST_AT_ONCE}", field="count")
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]


def named(references: References, name: str) -> References:
    """The same for a workload of another name.

    :raises pydantic.ValidationError: the name is none.
    """
    _Named(name=name)
    return replace(references, spec=references.spec.model_copy(update={"name": name}))


def insert(
    context: Context, wanted: Sequence[References], source: Workload | None = None
) -> list[Changed]:
    """Charge, place and make workloads as one batch. They differ in names and volumes only.

    :param source: what they are clones of; None: they start from their image.
    """
    uow, project_id = context.uow, context.own_project.id
    refuse_taken(context, *(one.spec.name for one in wanted))
    amounts = _amounts(wanted[0], len(wanted))
    uow.quotas.check(project_id, amounts)
    requests = _requests(project_id, wanted)
    known = context.services.known_hosts
    decisions = placement.decide(uow, requests, known=known, alone=context.overtaken)
    revisions = placement.commit(uow, requests, decisions, known=known, moving=False)
    ipam.lock_networks(uow, wanted[0].networks)
    lock_volumes(uow, [volume for one in wanted for volume in one.volumes])
    made = [
        _made(context, one, request, decision, revisions, source)
        for one, request, decision in zip(wanted, requests, decisions, strict=True)
    ]
    uow.workloads.add_all(made)
    _connect(context, wanted, made)
    operations = _record_all(context, made, *_creation(source))
    changed = [Changed(*each) for each in zip(made, operations, decisions, strict=True)]
    uow.quotas.charge(project_id, amounts)
    wake_after_commit(context, *revisions)
    spanned = [one.id for one in wanted[0].networks if one.type is NetworkType.OVERLAY]
    if spanned:
        overlays.announce(context.services, uow, spanned, told=revisions)
    return changed


def _requests(project_id: str, wanted: Sequence[References]) -> list[PlacementRequest]:
    """What the scheduler is asked. Volumes that differ are copies, all of them on one host."""
    first = placement_request(project_id, new_id(), wanted[0])
    return [first, *(first.renamed(new_id(), one.spec.name) for one in wanted[1:])]


def _amounts(references: References, count: int) -> dict[str, float]:
    addresses = sum(ipam.addresses_per_nic(network) for network in references.networks)
    each = amounts_of(references.spec, references.image_type, addresses)
    return {what: amount * count for what, amount in each.items()}


def lock_volumes(uow: UnitOfWork, volumes: Iterable[Volume]) -> None:
    """Before several are bound, in the order of ids."""
    for volume_id in sorted({volume.id for volume in volumes}):
        uow.volumes.lock(volume_id)


def _made(
    context: Context,
    references: References,
    request: PlacementRequest,
    decision: Decision,
    revisions: Mapping[str, int],
    source: Workload | None,
) -> Workload:
    assert decision.host_id is not None  # placement.commit refused it otherwise
    spec = references.spec
    return Workload(
        id=request.id,
        project_id=request.project_id,
        name=spec.name,
        kind=spec.kind,
        init=spec.init,
        spec=spec,
        host_id=decision.host_id,
        cluster_id=references.cluster.id,
        image_id=references.image.id if references.image else None,
        cdrom_image_id=references.cdrom.id if references.cdrom else None,
        claim_vcpus=request.vcpus,
        claim_memory=request.memory,
        claim_disk=request.disk,
        placement=decision.explanation.to_json(),
        clone_of=source.id if source is not None else None,
        ha_since=1 if spec.ha.enabled else None,
        revision=revisions[decision.host_id],
        created_at=context.now,
        updated_at=context.now,
    )


def _connect(context: Context, wanted: Sequence[References], workloads: Sequence[Workload]) -> None:
    """Give new workloads their NICs and their volumes."""
    wishes = [
        ipam.NicWish(workload.id, index, nic, network)
        for references, workload in zip(wanted, workloads, strict=True)
        for index, (nic, network) in enumerate(
            zip(references.spec.nics, references.networks, strict=True)
        )
    ]
    ipam.add_nics(context.uow, wishes, context.now)
    for references, workload in zip(wanted, workloads, strict=True):
        for volume in references.volumes:
            bind_volume(context.uow, volume, workload)


def _creation(source: Workload | None) -> tuple[str, str, dict[str, Any] | None]:
    """The verb, the event, and what is told of it."""
    if source is None:
        return "create", "created", None
    return "clone", "cloned", {"from": source.name}


def bind_volume(uow: UnitOfWork, volume: Volume, workload: Workload) -> None:
    """Attach a volume to a workload, and to its host's pool if it was not bound yet.

    :raises Conflict: it is attached to another workload, or bound to another host.
    """
    if volume.workload_id not in (None, workload.id):
        raise Conflict(
            f"volume {volume.name!r} is attached to another workload",
            code="volume_in_use",
            hint="detach it there first",
        )
    if volume.host_id not in (None, workload.host_id):
        raise Conflict(
            f"volume {volume.name!r} is on another host than workload {workload.name!r}",
            code="volume_on_other_host",
            hint="use a volume that is not bound yet",
        )
    volume.workload_id = workload.id
    if volume.host_id is None:
        volume.host_id = workload.host_id
        pools = uow.pools.of_host(workload.host_id) if workload.host_id else ()
        volume.pool_id = pools[0].id if pools else None
    volume.version += 1


def set_power(
    context: Context,
    workload: Workload,
    verb: str,
    *,
    force: bool = False,
    timeout: int | None = None,
) -> Changed:
    """``start``, ``stop``, ``restart``, ``pause`` or ``resume`` a workload.

    ``force`` does not wait for a graceful stop; ``timeout`` replaces the spec's, in seconds.

    :raises IllegalTransition: the workload's state does not allow it.
    :raises Protected: the workload is protected from stopping.
    """
    outcome = check_verb(verb, workload.status.state, workload.spec, workload.deleting)
    if outcome is Outcome.NOTHING:
        return _nothing_to_do(context, workload, verb)
    refuse_while_copied(context.uow, workload, verb)
    wanted = {
        "start": PowerState.RUNNING,
        "stop": PowerState.STOPPED,
        "restart": PowerState.RUNNING,
        "pause": PowerState.PAUSED,
        "resume": PowerState.RUNNING,
    }[verb]
    refuse_in_maintenance(context.uow, workload, wanted)
    ended = workload.status.state in (State.STOPPED, State.FAILED)
    if verb == "restart" or (verb == "start" and ended):
        workload.restart_nonce += 1
    changes: dict[str, Any] = {"state": wanted}
    if timeout is not None:
        changes["stop_timeout"] = timeout
    workload.spec = workload.spec.model_copy(update=changes)
    workload.force_stop = force
    return advance(context, workload, verb, {"force": force} if force else {})


def _nothing_to_do(context: Context, workload: Workload, verb: str) -> Changed:
    """It is so already: an operation that has succeeded, and nothing else."""
    operation = context.begin(verb, "workload", workload, generation=workload.generation)
    message = f"it is {workload.status.state.value} already, or on its way there"
    end(operation, OperationState.SUCCEEDED, context.now, message)
    return Changed(workload, operation)


def delete(context: Context, workload: Workload) -> Changed:
    """Delete a workload, running or not; its row goes once nothing is left on the host.

    :raises Protected: it is protected.
    """
    check_verb("delete", workload.status.state, workload.spec, workload.deleting)
    if workload.deleting:
        pending = [op for op in context.uow.operations.open_for(workload.id) if op.verb == "delete"]
        if pending:
            return Changed(workload, pending[-1])
    refuse_while_copied(context.uow, workload, "delete")
    workload.deleting = True
    return advance(context, workload, "delete")


def advance(
    context: Context,
    workload: Workload,
    verb: str,
    data: dict[str, Any] | None = None,
) -> Changed:
    """Make a changed workload known: next generation, operation, event, and its host woken."""
    workload.generation += 1
    workload.updated_at = context.now
    if workload.host_id is not None:
        workload.revision = context.uow.hosts.next_revision(workload.host_id)
        wake_after_commit(context, workload.host_id)
    operation = _record(context, workload, verb, f"{verb}_requested", data)
    return Changed(workload, operation)


def wake_after_commit(context: Context, *host_ids: str) -> None:
    """Tell the agents of these hosts once the change is durable."""
    for host_id in host_ids:
        context.uow.after_commit(partial(context.services.wake_host, host_id))


def _record(
    context: Context,
    workload: Workload,
    verb: str,
    event: str,
    data: dict[str, Any] | None = None,
) -> Operation:
    return _record_all(context, [workload], verb, event, data)[0]


def _record_all(
    context: Context,
    workloads: Sequence[Workload],
    verb: str,
    event: str,
    data: dict[str, Any] | None = None,
) -> list[Operation]:
    """An operation and an event for each."""
    operations = [
        context.operation(verb, "workload", one, generation=one.generation, parameters=data)
        for one in workloads
    ]
    context.uow.operations.add_all(operations)
    for workload, operation in zip(workloads, operations, strict=True):
        context.record(
            f"workload.{event}",
            workload,
            f"{verb} was requested",
            operation_id=operation.id,
            host_id=workload.host_id,
            data=data,
        )
    return operations
