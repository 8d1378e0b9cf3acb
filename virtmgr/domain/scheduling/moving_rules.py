"""The filters that a batch moves: ports, affinity, room and the reserve. See ``rules``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from virtmgr.domain.scheduling.capacity import (
    RESOURCES,
    Amounts,
    Resource,
    format_amount,
    resource_name,
    shortfall,
    stays_within,
)
from virtmgr.domain.scheduling.fleet import Hosts, Mask
from virtmgr.domain.scheduling.model import PlacementRequest, carries, write_labels
from virtmgr.domain.scheduling.reserve import (
    failures_left,
    is_kept_anywhere,
    keeps_reserve,
    room,
)
from virtmgr.domain.scheduling.rule import Rule, Why, always
from virtmgr.domain.scheduling.tally import Tally
from virtmgr.domain.workload import Affinity


def moving_rules(
    tally: Tally, request: PlacementRequest, room: Mapping[Resource, Mask] | None = None
) -> tuple[Rule, ...]:
    """Those that the request must pass after the fixed ones.

    :param room: who has room, where that is known.
    """
    return (
        *_ports(tally, request),
        *_affinity(tally, request),
        *_kept_away(tally, request),
        *_room(request.asked, room or has_room(tally, request.asked)),
        *_reserve(tally, request),
    )


def refused_besides_room(tally: Tally, request: PlacementRequest) -> Mask:
    """The hosts that do not pass every moving rule but the three of room."""
    refused: Mask = np.zeros(len(tally.fleet), bool)
    for port in request.ports:
        refused |= tally.publishing(port)
    for _, broken in _required(tally, request):
        refused |= broken
    away = tally.kept_apart(request)
    if away is not None:
        refused |= away
    for rule in _reserve(tally, request):
        refused |= ~rule.passes
    return refused


def has_room(tally: Tally, asked: Amounts, hosts: Hosts = slice(None), /) -> dict[Resource, Mask]:
    """For each resource, which hosts (all, or whether this one) have room for ``asked``."""
    claimed, limits = tally.claimed, tally.fleet.limits
    return {
        "vcpus": stays_within(claimed.vcpus[hosts], asked.vcpus, limits.vcpus[hosts], "vcpus"),
        "memory": stays_within(claimed.memory[hosts], asked.memory, limits.memory[hosts], "memory"),
        "disk": stays_within(claimed.disk[hosts], asked.disk, limits.disk[hosts], "disk"),
    }


def _ports(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    for port in sorted(request.ports):
        yield Rule(
            code="port_taken",
            passes=~tally.publishing(port),
            one=f"publishes port {port} already",
            many=f"publish port {port} already",
            why=always(f"its port {port} is published by another workload"),
        )


def _affinity(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    for rule, broken in _required(tally, request):
        labels, scope = write_labels(rule.labels), rule.scope
        if rule.mode == "apart":
            yield Rule(
                code="not_apart",
                passes=~broken,
                one=f"is on a {scope} with {labels}",
                many=f"are on a {scope} with {labels}",
                why=always(f"apart from {labels} is required, one is on its {scope}"),
            )
        else:
            yield Rule(
                code="not_together",
                passes=~broken,
                one=f"is on a {scope} without {labels}",
                many=f"are on a {scope} without {labels}",
                why=always(f"together with {labels} is required, none is on its {scope}"),
            )


def _required(tally: Tally, request: PlacementRequest) -> Iterator[tuple[Affinity, Mask]]:
    """The affinity rules that have something to forbid, and the hosts that would break them."""
    for rule in request.affinity:
        if not rule.required:
            continue
        if rule.mode == "apart":
            yield rule, near(tally, request, rule)
        elif not _is_first_of_its_group(tally, request, rule):
            yield rule, ~near(tally, request, rule)


def near(tally: Tally, request: PlacementRequest, rule: Affinity) -> Mask:
    """The hosts that have a workload within ``rule.scope`` that the rule speaks of."""
    return tally.near(request.project_id, rule.labels, rule.scope)


def _is_first_of_its_group(tally: Tally, request: PlacementRequest, rule: Affinity) -> bool:
    """Whether it is to be together with its like, and there is none yet: then anywhere will do."""
    if not carries(request.labels, rule.labels):
        return False
    return not near(tally, request, rule).any()


def _kept_away(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    away = tally.kept_apart(request)
    if away is not None:
        yield Rule(
            code="kept_apart",
            passes=~away,
            one="has a workload that requires to be apart from it",
            many="have a workload that requires to be apart from it",
            why=always("a workload near it requires to be apart from workloads like this one"),
        )


def leaves_nobody_alone(tally: Tally, request: PlacementRequest, source: int) -> Mask:
    """The hosts that what has left ``source`` may go to so that those which require to be together
    with it still are with one of its like."""
    passes = np.ones(len(tally.fleet), bool)
    for other in tally.with_rules():
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


def _room(asked: Amounts, room: Mapping[Resource, Mask]) -> Iterator[Rule]:
    for resource, passes in room.items():
        name = resource_name(resource)
        yield Rule(
            code=f"lacks_{resource}",
            passes=passes,
            one=f"lacks {name}",
            many=f"lack {name}",
            why=_too_little(asked, resource),
            resource=resource,
        )


def keeps_reserve_anywhere(tally: Tally, request: PlacementRequest) -> bool:
    """Whether no host is refused because of a reserve."""
    if not _has_to_keep_reserve(tally, request):
        return True
    return is_kept_anywhere(tally, request.cluster_id, request.asked)


def _has_to_keep_reserve(tally: Tally, request: PlacementRequest) -> bool:
    cluster = tally.fleet.clusters.get(request.cluster_id)
    return cluster is not None and cluster.reserve > 0 and not request.from_reserve


def _reserve(tally: Tally, request: PlacementRequest) -> Iterator[Rule]:
    fleet = tally.fleet
    if not _has_to_keep_reserve(tally, request):
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
            why=always(
                f"{free} of {name} are free in the cluster, and {kept} are kept for the failure "
                f"of {lost}"
            ),
            numbers=(free, kept),
        )


def largest_free(tally: Tally, rule: Rule, request: PlacementRequest, hosts: Mask) -> str:
    """How near the best of ``hosts`` comes to a capacity rule: what is free, what is asked."""
    resource = rule.resource
    if resource is None or not hosts.any():
        return ""
    free = (tally.fleet.limits.of(resource) - tally.claimed.of(resource))[hosts].max()
    largest = format_amount(resource, max(float(free), 0))
    return f" (largest free {largest}, asked {format_amount(resource, request.asked.of(resource))})"


def _too_little(asked: Amounts, resource: Resource) -> Why:
    return lambda _, claimed, limit: shortfall(claimed, asked, limit, resource).message
