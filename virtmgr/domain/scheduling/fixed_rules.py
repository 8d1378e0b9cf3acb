"""The filters of which no batch changes the outcome, worked out once for requests of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from virtmgr.domain.host import HostState
from virtmgr.domain.scheduling.capacity import Amounts
from virtmgr.domain.scheduling.fleet import Fleet
from virtmgr.domain.scheduling.model import HostView, PlacementRequest
from virtmgr.domain.scheduling.rule import Filtered, Rule, Why, always, filtered


def fixed_rules(fleet: Fleet, request: PlacementRequest) -> Filtered:
    """Those that the request must pass, first what says most about a host."""

    def work_out() -> Filtered:
        return filtered(tuple(_fixed(fleet, request)), np.ones(len(fleet), bool))

    return fleet.remember(("rules", *_shape(request)), work_out)


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
        why=always(f"only host {wanted} is asked for"),
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
            why=always(f"it {one}"),
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
            why=always(f"a network needs the host's bridge {bridge}, it has none"),
        )


def _vlans(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    if request.vlans:
        yield Rule(
            code="no_vlan",
            passes=fleet.where(("vlan",), lambda host: host.vlans),
            one="cannot make VLANs",
            many="cannot make VLANs",
            why=always("it cannot make VLANs: its kernel lacks 8021q, or its agent is too old"),
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
        why=always(f"its volumes are on {names}"),
    )


def _leftovers(fleet: Fleet, request: PlacementRequest) -> Iterator[Rule]:
    where = request.avoid
    if where:
        yield Rule(
            code="has_leftovers",
            passes=fleet.where(("avoid", where), lambda host: host.id not in where),
            one="has not removed what it had of it",
            many="have not removed what they had of it",
            why=always("it was lost while it had the workload, and has not removed that yet"),
        )


def _host_name(fleet: Fleet, host_id: str) -> str:
    position = fleet.index.get(host_id)
    return host_id if position is None else fleet.hosts[position].name


def _is_not(state: HostState) -> Callable[[HostView], bool]:
    return lambda host: host.state != state


def _has_bridge(bridge: str) -> Callable[[HostView], bool]:
    return lambda host: bridge in host.bridges


def _label_missing(key: str, value: str) -> Why:
    def why(host: HostView, *_: Amounts) -> str:
        found = host.label(key)
        return f"{key}={value} is required, it has {'none' if found is None else f'{key}={found}'}"

    return why
