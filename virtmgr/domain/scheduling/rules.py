"""The filters: one rule each, the hosts that pass it, and the reason why another does not.

A rule that has nothing to say about a request (no label required, no volume bound) is left out.
Rules of which no batch changes the outcome are worked out once for requests of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from virtmgr.domain.host import HostState
from virtmgr.domain.scheduling.capacity import (
    RESOURCES,
    Amounts,
    Resource,
    format_amount,
    resource_name,
    shortfall,
    stays_within,
)
from virtmgr.domain.scheduling.fleet import Fleet, Mask, in_domains
from virtmgr.domain.scheduling.model import HostView, PlacementRequest, carries, write_labels
from virtmgr.domain.scheduling.reserve import failures_left, keeps_reserve, room
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.workload import Affinity

Why = Callable[[HostView, Amounts, Amounts], str]
"""The reason of a host, from the host, what was claimed on it, and its limits."""


@dataclass(frozen=True, eq=False)
class Rule:
    """One filter, applied to one request."""

    code: str  # stable, of the reason
    passes: Mask
    one: str  # for the summary: "1 lacks memory"
    many: str  # "2 lack memory"
    why: Why
    resource: Resource | None = None  # of a capacity rule, whose summary tells the largest free


def rules_for(tally: Tally, request: PlacementRequest) -> tuple[Rule, ...]:
    """Every rule that the request must pass, those first that say most about a host."""
    fleet = tally.fleet
    fixed = fleet.remember(("rules", *_shape(request)), lambda: tuple(_fixed(fleet, request)))
    return (
        *fixed,
        *_ports(tally, request),
        *_affinity(tally, request),
        *_kept_away(tally, request),
        *_room(tally, request),
        *_reserve(tally, request),
    )


def _shape(request: PlacementRequest) -> tuple[object, ...]:
    """All that the fixed rules look at."""
    return (
        request.cluster_id,
        request.host_id,
        request.runs_as,
        request.architecture,
        tuple(sorted(request.require.items())),
        request.bridges,
        request.overlay_mtu,
        request.vlans,
        request.volume_host_ids,
        request.avoid,
    )


def _fixed(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    yield _cluster(fleet, request)
    yield from _pinned(fleet, request)
    yield from _states(fleet)
    yield from _architecture(fleet, request)
    yield _driver(fleet, request)
    yield from _labels(fleet, request)
    yield from _bridges(fleet, request)
    yield from _overlays(fleet, request)
    yield from _vlans(fleet, request)
    yield from _volumes(fleet, request)
    yield from _leftovers(fleet, request)


def _cluster(fleet: Fleet, request: PlacementRequest) -> Rule:
    wanted = fleet.clusters.get(request.cluster_id)
    name = wanted.name if wanted else request.cluster_id
    return Rule(
        code="other_cluster",
        passes=fleet.where(
            ("cluster", request.cluster_id), lambda host: host.cluster_id == request.cluster_id
        ),
        one="is in another cluster",
        many="are in other clusters",
        why=lambda host, *_: (
            f"it is in cluster {fleet.clusters[host.cluster_id].name}, {name} is asked"
        ),
    )


def _pinned(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    if request.host_id is None:
        return
    wanted = _host_name(fleet, request.host_id)
    yield Rule(
        code="not_the_host",
        passes=fleet.where(("host", request.host_id), lambda host: host.id == request.host_id),
        one="is not the host asked for",
        many="are not the host asked for",
        why=_always(f"only host {wanted} is asked for"),
    )


_STATES = {
    HostState.ENROLLING: ("is still enrolling", "are still enrolling"),
    HostState.INSTALLING: ("is being installed", "are being installed"),
    HostState.INSTALL_FAILED: (
        "is not installed: that failed",
        "are not installed: that failed",
    ),
    HostState.PROBING: ("is not ready yet", "are not ready yet"),
    HostState.CORDONED: ("is cordoned", "are cordoned"),
    HostState.DRAINING: ("is being drained", "are being drained"),
    HostState.MAINTENANCE: ("is in maintenance", "are in maintenance"),
    HostState.UNREACHABLE: ("is unreachable", "are unreachable"),
    HostState.FENCED: ("is off", "are off"),
    HostState.REMOVING: ("is being removed", "are being removed"),
}


def _states(fleet: Fleet) -> Iterator[Rule]:
    for state, (one, many) in _STATES.items():
        yield Rule(
            code=f"host_{state}",
            passes=fleet.where(("not", state), _is_not(state)),
            one=one,
            many=many,
            why=_always(f"it {one}"),
        )


def _architecture(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    wanted = request.architecture
    if wanted is None:
        return
    yield Rule(
        code="other_architecture",
        passes=fleet.where(("architecture", wanted), lambda host: host.architecture == wanted),
        one="has another architecture",
        many="have another architecture",
        why=lambda host, *_: f"its architecture is {host.architecture or 'unknown'}, not {wanted}",
    )


def _driver(fleet: Fleet, request: PlacementRequest) -> Rule:
    wanted = request.runs_as
    return Rule(
        code="no_driver",
        passes=fleet.where(("kind", wanted), lambda host: wanted in host.kinds),
        one=f"has no healthy driver for {wanted}",
        many=f"have no healthy driver for {wanted}",
        why=lambda host, *_: (
            f"it has no healthy driver for {wanted}, only for "
            f"{', '.join(sorted(host.kinds)) or 'nothing'}"
        ),
    )


def _labels(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    for key, value in sorted(request.require.items()):
        yield Rule(
            code="lacks_label",
            passes=fleet.having_label(key, value),
            one=f"lacks the label {key}={value}",
            many=f"lack the label {key}={value}",
            why=_label_missing(key, value),
        )


def _bridges(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    for bridge in sorted(request.bridges):
        yield Rule(
            code="no_bridge",
            passes=fleet.where(("bridge", bridge), _has_bridge(bridge)),
            one=f"has no bridge {bridge}",
            many=f"have no bridge {bridge}",
            why=_always(f"a network needs the host's bridge {bridge}, it has none"),
        )


def _vlans(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    if request.vlans:
        yield Rule(
            code="no_vlan",
            passes=fleet.where(("vlan",), lambda host: host.vlans),
            one="cannot make VLANs",
            many="cannot make VLANs",
            why=_always("it cannot make VLANs: its kernel lacks 8021q, or its agent is too old"),
        )


def _overlays(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    wanted = request.overlay_mtu
    if not wanted:
        return
    yield Rule(
        code="no_tunnel",
        passes=fleet.where(("tunnel",), lambda host: host.overlay_mtu > 0),
        one="has no tunnel for overlay networks",
        many="have no tunnel for overlay networks",
        why=lambda host, *_: f"it has no tunnel for overlay networks: {host.no_tunnel}",
    )
    yield Rule(
        code="tunnel_too_narrow",
        passes=fleet.where(("overlay", wanted), lambda host: not 0 < host.overlay_mtu < wanted),
        one=f"has a tunnel for packets smaller than {wanted} bytes",
        many=f"have tunnels for packets smaller than {wanted} bytes",
        why=lambda host, *_: (
            f"its tunnel carries packets of {host.overlay_mtu} bytes, {wanted} are asked"
        ),
    )


def _volumes(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    where = request.volume_host_ids
    if not where:
        return
    names = " and ".join(sorted(_host_name(fleet, host_id) for host_id in where))
    yield Rule(
        code="volume_elsewhere",
        passes=fleet.where(("volumes", where), lambda host: where == {host.id}),
        one="does not have its volumes",
        many="do not have its volumes",
        why=_always(f"its volumes are on {names}"),
    )


def _leftovers(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    where = request.avoid
    if where:
        yield Rule(
            code="has_leftovers",
            passes=fleet.where(("avoid", where), lambda host: host.id not in where),
            one="has not removed what it had of it",
            many="have not removed what they had of it",
            why=_always("it was lost while it had the workload, and has not removed that yet"),
        )


def _ports(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    for port in sorted(request.ports):
        yield Rule(
            code="port_taken",
            passes=~tally.publishing(port),
            one=f"publishes port {port} already",
            many=f"publish port {port} already",
            why=_always(f"its port {port} is published by another workload"),
        )


def _affinity(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    for rule in request.affinity:
        if not rule.required:
            continue
        labels = write_labels(rule.labels)
        if rule.mode == "apart":
            yield Rule(
                code="not_apart",
                passes=~near(tally, request, rule),
                one=f"is on a {rule.scope} with {labels}",
                many=f"are on a {rule.scope} with {labels}",
                why=_always(f"apart from {labels} is required, one is on its {rule.scope}"),
            )
        elif not _is_first_of_its_group(tally, request, rule):
            yield Rule(
                code="not_together",
                passes=near(tally, request, rule),
                one=f"is on a {rule.scope} without {labels}",
                many=f"are on a {rule.scope} without {labels}",
                why=_always(f"together with {labels} is required, none is on its {rule.scope}"),
            )


def near(tally: Tally, request: PlacementRequest, rule: Affinity) -> Mask:
    """The hosts that have a workload within ``rule.scope`` that the rule speaks of."""
    counts = tally.matching(request.project_id, rule.labels)
    mask: Mask = in_domains(counts, tally.fleet.domains(rule.scope)) > 0
    return mask


def _is_first_of_its_group(tally: Tally, request: PlacementRequest, rule: Affinity) -> bool:
    """Whether it is to be together with its like, and there is none yet: then anywhere will do."""
    if not carries(request.labels, rule.labels):
        return False
    return not tally.matching(request.project_id, rule.labels).any()


def _kept_away(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    passes: Mask | None = None
    for host, rule in tally.keeping_away(request):
        if passes is None:
            passes = np.ones(len(tally.fleet), bool)
        domains = tally.fleet.domains(rule.scope)
        passes &= domains != domains[host]
    if passes is not None:
        yield Rule(
            code="kept_apart",
            passes=passes,
            one="has a workload that requires to be apart from it",
            many="have a workload that requires to be apart from it",
            why=_always("a workload near it requires to be apart from workloads like this one"),
        )


def leaves_nobody_alone(tally: Tally, request: PlacementRequest, source: int) -> Mask:
    """The hosts that what has left ``source`` may go to so that those which require to be together
    with it still are with one of its like."""
    passes = np.ones(len(tally.fleet), bool)
    for other in tally.placed_with_rules():
        if other.project_id != request.project_id or other.id == request.id:
            continue
        here = tally.fleet.index[other.host_id]
        for rule in other.affinity:
            if rule.mode != "together" or not rule.required:
                continue
            domains = tally.fleet.domains(rule.scope)
            near_it = domains == domains[here]
            if not near_it[source] or not carries(request.labels, rule.labels):
                continue
            others = tally.matching(other.project_id, rule.labels)[near_it].sum()
            if others <= carries(other.labels, rule.labels):
                passes &= near_it
    return passes


def _room(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    asked = request.asked
    for resource in RESOURCES:
        name = resource_name(resource)
        yield Rule(
            code=f"lacks_{resource}",
            passes=stays_within(
                tally.claimed.of(resource),
                asked.of(resource),
                tally.fleet.limits.of(resource),
                resource,
            ),
            one=f"lacks {name}",
            many=f"lack {name}",
            why=_too_little(asked, resource),
            resource=resource,
        )


def _reserve(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    fleet = tally.fleet
    if request.from_reserve or request.cluster_id not in fleet.clusters:
        return
    if not fleet.clusters[request.cluster_id].reserve:
        return
    failures = failures_left(fleet, request.cluster_id)
    lost = "a host" if failures == 1 else f"{failures} hosts"
    for resource in RESOURCES:
        here, amount = room(tally, request.cluster_id, resource), request.asked.of(resource)
        name, kept = resource_name(resource), format_amount(resource, here.needed(failures))
        free = format_amount(resource, here.free)
        yield Rule(
            code=f"reserve_{resource}",
            passes=keeps_reserve(tally, request.cluster_id, resource, amount, ha=request.ha),
            one=f"would leave too little {name} for the failure of {lost}",
            many=f"would leave too little {name} for the failure of {lost}",
            why=_always(
                f"{free} of {name} are free in the cluster, and {kept} are kept for the failure "
                f"of {lost}"
            ),
        )


def largest_free(tally: Tally, rule: Rule, request: PlacementRequest, hosts: Mask) -> str:
    """How near the best of ``hosts`` comes to a capacity rule: what is free, what is asked."""
    resource = rule.resource
    if resource is None or not hosts.any():
        return ""
    free = (tally.fleet.limits.of(resource) - tally.claimed.of(resource))[hosts].max()
    largest = format_amount(resource, max(float(free), 0))
    return f" (largest free {largest}, asked {format_amount(resource, request.asked.of(resource))})"


def _host_name(fleet: Fleet, host_id: str) -> str:
    position = fleet.index.get(host_id)
    return host_id if position is None else fleet.hosts[position].name


def _is_not(state: HostState) -> Callable[[HostView], bool]:
    return lambda host: host.state != state


def _has_bridge(bridge: str) -> Callable[[HostView], bool]:
    return lambda host: bridge in host.bridges


def _always(text: str) -> Why:
    return lambda *_: text


def _label_missing(key: str, value: str) -> Why:
    def why(host: HostView, *_: Amounts) -> str:
        found = host.label(key)
        return f"{key}={value} is required, it has {'none' if found is None else f'{key}={found}'}"

    return why


def _too_little(asked: Amounts, resource: Resource) -> Why:
    return lambda _, claimed, limit: shortfall(claimed, asked, limit, resource).message
