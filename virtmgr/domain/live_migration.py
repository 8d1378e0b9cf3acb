"""Whether a workload can be moved while it runs, as far as the inventory can tell. Pure.

All findings at once, before anything is begun. What only the two hosts' runtimes can tell (does
this CPU fit, exactly) they find out before the guest is touched, and refuse it then.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from enum import StrEnum
from typing import Any

from virtmgr.domain.cpu import AUTO, HOST
from virtmgr.domain.host import Host
from virtmgr.domain.migration import MigrationMode, Phase
from virtmgr.domain.scheduling import Decision, PlacementRequest
from virtmgr.domain.sync import ObservedMove
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import Hardware, Kind, Reason, State, Workload

FEATURE = "live_migration"  # ports.driver.Feature.LIVE_MIGRATION, as hosts declare it

_SHOWN = 3  # hosts that are named where many are meant


class Wish(StrEnum):
    """What is asked for."""

    LIVE = "live"  # or not at all
    COLD = "cold"
    LIVE_IF_VM = "live_if_vm"  # a VM that runs: live or not at all; all others cold
    EITHER = "either"  # live where possible


def wish_for(mode: MigrationMode | None) -> Wish:
    """What a request asks for that names this mode, or none."""
    return Wish.LIVE_IF_VM if mode is None else Wish(mode.value)


def after_report(
    phase: Phase, said: ObservedMove, *, by_source: bool, cancelling: bool
) -> Phase | None:
    """The phase that a report of one of the two hosts leads to; None: it stays.

    The source alone says whether the guest has left it, and says it once. The target lets it run
    only when the source has asked it to, which the source does after it has written down that the
    guest has left: so a target's ``arrived`` says the same, for a source that cannot say it any
    more. What a silent source would have said is not guessed.
    """
    if phase is Phase.MIGRATING and by_source:
        if said.departed:
            return Phase.STARTING
        return Phase.RETREATING if said.stayed else None
    if phase is Phase.MIGRATING:
        return Phase.STARTING if said.arrived else None
    if phase is Phase.PREPARING and not by_source:
        if said.refused:
            return Phase.RETREATING
        if said.ready:
            return Phase.RETREATING if cancelling else Phase.MIGRATING
    return None


def is_alive(workload: Workload) -> bool:
    """Whether there is something to be kept running."""
    return workload.status.state in (State.RUNNING, State.PAUSED)


def settled(
    workload: Workload, wish: Wish, why_not: Sequence[Reason]
) -> tuple[MigrationMode, Reason | None]:
    """The mode, and why it is refused.

    :param why_not: all that stands against a live one.
    """
    wants_live = wish in (Wish.LIVE, Wish.EITHER) or (
        wish is Wish.LIVE_IF_VM and workload.kind is Kind.VM and is_alive(workload)
    )
    if not wants_live:
        return MigrationMode.COLD, None
    if not why_not:
        return MigrationMode.LIVE, None
    if wish is Wish.EITHER:
        return MigrationMode.COLD, None
    hints = [reason.hint for reason in why_not if reason.hint]
    refused = Reason(
        code="not_live",
        message="it cannot be moved while it runs: "
        + "; ".join(reason.message for reason in why_not),
        hint="; ".join([*dict.fromkeys(hints), "or stop it meanwhile, with --cold"]),
    )
    return MigrationMode.LIVE, refused


def findings(
    workload: Workload, volumes: Sequence[Volume], source: Host, target: Host, cpu: str = HOST
) -> tuple[Reason, ...]:
    """Everything that stands against moving the workload live between these hosts.

    :param cpu: what VMs of the source's cluster see from their next start; counts where it is not
        known what this one sees.
    """
    if workload.kind is not Kind.VM:
        return (Reason(code="no_live_containers", message="containers do not move while they run"),)
    if not is_alive(workload):
        return (Reason(code="not_running", message=f"it is {workload.status.state}"),)
    found = [_not_able(host) for host in (source, target)]
    found += [_read_only(workload), _other_architecture(source, target)]
    hardware = workload.status.hardware
    found += [_other_accelerator(source, target), _other_machine(hardware, target)]
    found += [_other_cpu(source, target, hardware.cpu if hardware is not None else cpu)]
    found += [_not_ready(volume) for volume in volumes]
    return tuple(reason for reason in found if reason is not None)


def live_targets(
    workload: Workload, volumes: Sequence[Volume], source: Host, hosts: Iterable[Host], cpu: str
) -> frozenset[str]:
    """Ids of the hosts that the workload could go to live: against which there are no findings."""
    able: set[str] = set()
    alike: dict[Hashable, bool] = {}  # fleets are of few kinds of hosts
    for host in hosts:
        kind = _as_target(host)
        if kind not in alike:
            alike[kind] = not findings(workload, volumes, source, host, cpu)
        if alike[kind]:
            able.add(host.id)
    return frozenset(able)


def _as_target(host: Host) -> Hashable:
    """All of a host that ``findings`` looks at, names apart."""
    driver, facts = _driver(host), host.facts
    seen = ("features", "cpu_models", "machine_types")
    return (
        host.architecture,
        facts.get("accelerator", "none"),
        facts.get("cpu_model", ""),
        driver.get("version", ""),
        *(tuple(driver.get(name, ())) for name in seen),
    )


def choosy_first(requests: Iterable[PlacementRequest]) -> list[PlacementRequest]:
    """In the order to place them in: those first that can go live to few hosts only, so that none
    takes a place from them that could as well go elsewhere."""
    return sorted(requests, key=lambda one: len(one.live_host_ids) or float("inf"))


def not_taken(request: PlacementRequest, decision: Decision) -> tuple[Reason, ...]:
    """Why it goes to none of the hosts that it could go to live."""
    refusing = [
        f"{verdict.host_name} ({'; '.join(reason.message for reason in verdict.reasons)})"
        for verdict in decision.explanation.verdicts
        if verdict.host_id in request.live_host_ids and not verdict.fits
    ]
    if not refusing:
        return ()
    more = f", and {len(refusing) - _SHOWN} more" if len(refusing) > _SHOWN else ""
    return (
        Reason(
            code="not_taken_live",
            message="hosts that could take it live do not take it now: "
            + ", ".join(refusing[:_SHOWN])
            + more,
            hint="mend that, and move it again",
        ),
    )


def _driver(host: Host) -> dict[str, Any]:
    """What the host's driver for VMs says of itself; empty: it has none."""
    for driver in host.facts.get("drivers", ()):
        if Kind.VM in driver.get("kinds", ()):
            return dict(driver)
    return {}


def _not_able(host: Host) -> Reason | None:
    if FEATURE in _driver(host).get("features", ()):
        return None
    return Reason(
        code="host_not_able",
        message=f"host {host.name} does not offer live migration",
        hint=f"upgrade the agent of host {host.name}",
    )


def _read_only(workload: Workload) -> Reason | None:
    names = [mount.volume for mount in workload.spec.volumes if mount.read_only]
    if not names:
        return None
    return Reason(
        code="read_only_volume",
        message=f"volume {names[0]} is attached read-only, and such a disk cannot be copied live",
        hint="detach it first",
    )


def _other_architecture(source: Host, target: Host) -> Reason | None:
    if source.architecture == target.architecture:
        return None
    return Reason(
        code="architecture_differs",
        message=f"host {target.name} is {target.architecture}, not {source.architecture}",
    )


def _other_accelerator(source: Host, target: Host) -> Reason | None:
    here, there = (host.facts.get("accelerator", "none") for host in (source, target))
    if here == there:
        return None
    return Reason(
        code="accelerator_differs",
        message=f"VMs run under {there} on host {target.name}, and under {here} on {source.name}",
    )


def cpu_models(host: Host) -> tuple[str, ...]:
    """The named CPU models that VMs can have on the host."""
    return tuple(_driver(host).get("cpu_models", ()))


def machine_types(host: Host) -> tuple[str, ...]:
    """The versioned machine types that VMs can have on the host; none: its agent does not say."""
    return tuple(_driver(host).get("machine_types", ()))


def _other_machine(hardware: Hardware | None, target: Host) -> Reason | None:
    known = machine_types(target)
    if hardware is None or not known or hardware.machine in known:
        return None
    return Reason(
        code="machine_differs",
        message=f"its machine type {hardware.machine} is one that host {target.name} does not "
        f"have, whose newest is {known[-1]}",
        hint="set the cluster's cpu to auto and restart the VM, then it can move",
    )


def _other_cpu(source: Host, target: Host, cpu: str) -> Reason | None:
    if cpu == AUTO or cpu in cpu_models(target):
        return None
    if cpu != HOST:
        return Reason(code="cpu_differs", message=f"host {target.name} cannot offer CPU {cpu}")
    here, there = (
        (host.facts.get("cpu_model", ""), _driver(host).get("version", ""))
        for host in (source, target)
    )
    if here == there:
        return None
    return Reason(
        code="cpu_differs",
        message=f"it sees its host's own CPU, and host {target.name} has another CPU, libvirt or "
        f"QEMU ({', '.join(there)})",
        hint="set the cluster's cpu to auto and restart the VM, then it can move",
    )


def _not_ready(volume: Volume) -> Reason | None:
    if volume.state == "ready":
        return None
    return Reason(code="volume_not_ready", message=f"volume {volume.name} is {volume.state}")
