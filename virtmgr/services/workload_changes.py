"""Changes of a workload's spec: what differs is claimed, charged, attached or detached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from virtmgr.domain.errors import InvalidRequest, NoPlacement, NotFound
from virtmgr.domain.network import Network
from virtmgr.domain.scheduling import Amounts, shortfalls
from virtmgr.domain.states import check_verb, power_verb
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import (
    Nic,
    NicSpec,
    VolumeMount,
    Workload,
    WorkloadSpec,
)
from virtmgr.services import ipam, overlays, vlans
from virtmgr.services.being_copied import refuse_while_copied
from virtmgr.services.context import Context
from virtmgr.services.maintenance import refuse_in_maintenance
from virtmgr.services.pinned import pinned
from virtmgr.services.references import References, resolve
from virtmgr.services.workloads import (
    Changed,
    advance,
    bind_volume,
    lock_volumes,
    refuse_taken,
)

_FIXED = ("kind", "init", "root_disk", "placement")


def update(
    context: Context, workload: Workload, spec: WorkloadSpec, verb: str = "update"
) -> Changed:
    """Bring a workload's spec to ``spec``; the host applies live what it can.

    What it cannot is named in ``status.needs_restart``.

    :raises InvalidRequest: a field that is fixed at creation differs.
    :raises NameTaken: another workload of the project has the new name.
    :raises QuotaExceeded: the project's quota does not hold the larger workload.
    :raises NoPlacement: its host does not.
    """
    old = workload.spec
    check_verb(verb, workload.status.state, old, workload.deleting)
    refuse_while_copied(context.uow, workload, verb)
    if spec.init is None:
        spec = spec.model_copy(update={"init": old.init})
    nics = context.uow.nics.of_workloads([workload.id]).get(workload.id, ())
    references = resolve(context.uow, workload.project_id, pinned(workload, spec, nics))
    _check_fixed(workload, spec, references)
    if spec.name != workload.name:
        _rename(context, workload, spec.name)
    charged = _resize(context, workload, spec, references)
    charged |= _change_nics(context, workload, nics, spec, references)
    if spec.name != old.name:  # which the DNS of other hosts answers, too
        _announce(context, workload, [nic.network_id for nic in nics])
    _change_volumes(context, workload, references.volumes)
    if spec.cdrom != old.cdrom:
        workload.cdrom_image_id = references.cdrom.id if references.cdrom else None
    power = power_verb(old.state, spec.state)
    if power is not None:
        check_verb(power, workload.status.state, old, workload.deleting)
        refuse_in_maintenance(context.uow, workload, spec.state)
    workload.spec = spec
    context.uow.quotas.charge(workload.project_id, charged)
    changed = advance(context, workload, verb)
    if spec.ha.enabled and workload.ha_since is None:
        workload.ha_since = workload.generation
    elif not spec.ha.enabled:
        workload.ha_since = None
    return changed


def attach_volume(context: Context, workload: Workload, mount: VolumeMount) -> Changed:
    """Attach one more volume, live where the driver can."""
    spec = _respecify(workload, {"volumes": [*workload.spec.volumes, mount]})
    return update(context, workload, spec, "attach_volume")


def detach_volume(context: Context, workload: Workload, reference: str) -> Changed:
    """Detach the volume named by id or name; its data stays.

    :raises NotFound: it is not attached.
    """
    volume = context.uow.volumes.find(workload.project_id, reference)
    names = {reference, *((volume.id, volume.name) if volume else ())}
    kept = [mount for mount in workload.spec.volumes if mount.volume not in names]
    if len(kept) == len(workload.spec.volumes):
        raise NotFound(
            f"volume {reference!r} is not attached to workload {workload.name!r}",
            code="volume_not_attached",
            hint="see its volumes with 'virtmgr show'",
        )
    return update(context, workload, _respecify(workload, {"volumes": kept}), "detach_volume")


def attach_nic(context: Context, workload: Workload, nic: NicSpec) -> Changed:
    """Attach one more NIC, live where the driver can."""
    spec = _respecify(workload, {"nics": [*workload.spec.nics, nic]})
    return update(context, workload, spec, "attach_nic")


def detach_nic(context: Context, workload: Workload, index: int) -> Changed:
    """Detach the NIC with this index (eth0 is 0).

    :raises NotFound: there is none.
    """
    nics = context.uow.nics.of_workloads([workload.id]).get(workload.id, ())
    places = [place for place, nic in enumerate(nics) if nic.index == index]
    if not places:
        raise NotFound(
            f"workload {workload.name!r} has no NIC {index}",
            code="nic_not_attached",
            hint="see its NICs with 'virtmgr show'",
        )
    kept = [nic for place, nic in enumerate(workload.spec.nics) if place != places[0]]
    return update(context, workload, _respecify(workload, {"nics": kept}), "detach_nic")


def _respecify(workload: Workload, changes: dict[str, object]) -> WorkloadSpec:
    data = workload.spec.model_dump(exclude_unset=True)
    return WorkloadSpec.model_validate({**data, **changes})


def _check_fixed(workload: Workload, spec: WorkloadSpec, references: References) -> None:
    changed = [name for name in _FIXED if getattr(workload.spec, name) != getattr(spec, name)]
    if workload.image_id != (references.image.id if references.image else None):
        changed.append("image")
    if changed:
        raise InvalidRequest(
            f"{changed[0]} is fixed when a workload is created and cannot be changed",
            code="field_is_fixed",
            field=changed[0],
            hint="create another workload with the value that you want",
        )


def _rename(context: Context, workload: Workload, name: str) -> None:
    """Its DNS names change at once, the host name inside at its next start."""
    refuse_taken(context, name)
    before, workload.name = workload.name, name
    names = {"from": before, "to": name}
    context.record("workload.renamed", workload, f"it was {before} before", data=names)


def _resize(
    context: Context, workload: Workload, spec: WorkloadSpec, references: References
) -> dict[str, float]:
    """Claim on its host what the workload grows by; what to charge for it."""
    vcpus = round(spec.resources.vcpus - workload.claim_vcpus, 3)
    memory = spec.resources.memory - workload.claim_memory
    if not vcpus and not memory:
        return {}
    uow, charged = context.uow, {"vcpus": vcpus, "memory": memory}
    uow.quotas.check(workload.project_id, charged)
    workload.claim_vcpus, workload.claim_memory = spec.resources.vcpus, spec.resources.memory
    host = uow.hosts.lock(workload.host_id) if workload.host_id else None
    if host is None:
        return charged
    asked = Amounts(max(vcpus, 0.0), max(memory, 0), 0)
    lacking = shortfalls(host, references.cluster, asked)
    if lacking:
        raise NoPlacement(
            f"resizing workload {workload.name!r}: host {host.name!r} has "
            + "; ".join(one.message for one in lacking),
            field=f"resources.{lacking[0].resource}",
            hint="ask for less, or free capacity on the host",
        )
    uow.hosts.claim(host.id, host.version, vcpus=vcpus, memory=memory, disk=0)
    return charged


def _change_nics(
    context: Context,
    workload: Workload,
    present: Sequence[Nic],
    spec: WorkloadSpec,
    references: References,
) -> dict[str, float]:
    """Add and remove NICs; what to charge for it."""
    uow = context.uow
    wanted = [
        (network.id, asked.address)
        for network, asked in zip(references.networks, spec.nics, strict=True)
    ]
    kept, gone = _match_nics(present, workload.spec.nics, wanted)
    given_back = sum(ipam.remove_nic(uow, nic) for nic in gone)
    free = (index for index in range(1000) if index not in {nic.index for nic in kept.values()})
    fresh: list[tuple[NicSpec, Network]] = [
        (asked, network)
        for place, (asked, network) in enumerate(zip(spec.nics, references.networks, strict=True))
        if place not in kept
    ]
    taken = sum(ipam.addresses_per_nic(network) for _, network in fresh)
    host = uow.hosts.get(workload.host_id) if workload.host_id else None
    if host is not None and fresh:
        what = f"attaching workload {workload.name!r}"
        overlays.check_host(host, [network for _, network in fresh], what)
        vlans.check_host(host, [network for _, network in fresh], what)
    charged = {"addresses": float(taken - given_back)}
    uow.quotas.check(workload.project_id, charged)
    ipam.lock_networks(uow, [network for _, network in fresh])
    wishes = [ipam.NicWish(workload.id, next(free), *one) for one in fresh]
    ipam.add_nics(uow, wishes, context.now)
    changed = [nic.network_id for nic in gone] + [network.id for _, network in fresh]
    _announce(context, workload, changed)
    return charged


def _announce(context: Context, workload: Workload, network_ids: Iterable[str]) -> None:
    """The workload's own host hears of it by the workload's change."""
    told = (workload.host_id,) if workload.host_id else ()
    overlays.announce(context.services, context.uow, network_ids, told=told)


def _match_nics(
    present: Sequence[Nic], old: Sequence[NicSpec], wanted: Sequence[tuple[str, str]]
) -> tuple[dict[int, Nic], list[Nic]]:
    """Which NIC serves which place of ``wanted``, and those that serve none.

    NICs in the order of their index are the places of ``old``; what asks for the same address on
    the same network keeps its NIC.
    """
    available = [
        ((nic.network_id, asked.address), nic) for asked, nic in zip(old, present, strict=False)
    ]
    kept: dict[int, Nic] = {}
    for place, asked in enumerate(wanted):
        for pair in available:
            if pair[0] == asked:
                kept[place] = pair[1]
                available.remove(pair)
                break
    return kept, [nic for _, nic in available]


def _change_volumes(context: Context, workload: Workload, wanted: Sequence[Volume]) -> None:
    wanted_ids = [volume.id for volume in wanted]
    if len(set(wanted_ids)) != len(wanted_ids):
        raise InvalidRequest("a volume is named twice", field="volumes")
    for volume in context.uow.volumes.of_workload(workload.id):
        if volume.id not in wanted_ids:
            volume.workload_id = None
    lock_volumes(context.uow, [one for one in wanted if one.workload_id != workload.id])
    for volume in wanted:
        if volume.workload_id != workload.id:
            bind_volume(context.uow, volume, workload)
