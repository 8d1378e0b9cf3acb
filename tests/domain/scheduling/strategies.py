"""Random fleets and requests, small enough that everything happens often."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from virtmgr.domain.host import HostState, SchedulingPolicy
from virtmgr.domain.scheduling import (
    ClusterView,
    Fleet,
    HostPort,
    HostView,
    PlacedWorkload,
    PlacementRequest,
)
from virtmgr.domain.workload import GIB, Affinity, Init, Kind

SCOPES = ("host", "rack", "zone")
_ab = st.sampled_from(("a", "b"))
labels = st.fixed_dictionaries({}, optional={"tier": _ab, "app": _ab})
places = st.fixed_dictionaries(
    {},
    optional={"zone": st.sampled_from(("z1", "z2")), "rack": st.sampled_from(("r1", "r2"))},
)
ports = st.builds(
    HostPort,
    st.sampled_from(("tcp", "udp")),
    st.sampled_from((80, 81)),
    st.sampled_from(("127.0.0.1", "0.0.0.0")),
)
cpus = st.one_of(st.integers(1, 8), st.sampled_from((0.1, 0.3, 0.5, 1.7)))
overcommit = st.sampled_from((0.5, 1.0, 1.1, 1.5, 4.0))
clusters = st.builds(
    ClusterView,
    id=st.just("c"),
    name=st.just("default"),
    policy=st.sampled_from(SchedulingPolicy),
    overcommit_vcpus=overcommit,
    overcommit_memory=overcommit,
    overcommit_disk=overcommit,
)
affinities = st.builds(
    Affinity,
    mode=st.sampled_from(("together", "apart")),
    labels=st.fixed_dictionaries({"tier": _ab}, optional={"app": _ab}),
    scope=st.sampled_from(SCOPES),
    required=st.booleans(),
)


def host(number: int, **given: Any) -> HostView:
    """A ready host with room for 8 vCPUs, 8 GiB of memory and 100 GiB of disk."""
    default: dict[str, Any] = {
        "id": f"host-{number:03}",
        "name": f"h{number}",
        "cluster_id": "c",
        "state": HostState.READY,
        "architecture": "x86_64",
        "capacity_vcpus": 8,
        "capacity_memory": 8 * GIB,
        "capacity_disk": 100 * GIB,
        "kinds": frozenset({"vm", "container:system", "container:app"}),
        "version": number + 1,
    }
    return HostView(**{**default, **given})


def request(number: int = 0, **given: Any) -> PlacementRequest:
    """A VM of 1 vCPU, 1 GiB of memory and 1 GiB of disk."""
    default: dict[str, Any] = {
        "id": f"request-{number:03}",
        "name": f"w{number}",
        "project_id": "p",
        "cluster_id": "c",
        "kind": Kind.VM,
        "vcpus": 1,
        "memory": GIB,
        "disk": GIB,
    }
    return PlacementRequest(**{**default, **given})


def cluster(**given: Any) -> ClusterView:
    """A cluster without overcommit."""
    return ClusterView(**{"id": "c", "name": "default", "overcommit_vcpus": 1.0, **given})


@st.composite
def hosts(draw: st.DrawFn, most: int = 8) -> list[HostView]:
    """Hosts, most of them ready, partly claimed, some over their limits."""
    return [draw(a_host(number)) for number in range(draw(st.integers(0, most)))]


@st.composite
def a_host(draw: st.DrawFn, number: int) -> HostView:
    state = draw(st.sampled_from((*[HostState.READY] * 6, *HostState)))
    kinds = draw(st.sets(st.sampled_from(("vm", "container:app", "container:system"))))
    return host(
        number,
        cluster_id=draw(st.sampled_from(("c", "c", "c", "other"))),
        state=state,
        labels={**draw(labels), **draw(places)},
        architecture=draw(st.sampled_from(("x86_64", "x86_64", "aarch64"))),
        capacity_vcpus=draw(cpus),
        capacity_memory=draw(st.integers(0, 12)) * GIB + draw(st.integers(0, 1)),
        capacity_disk=draw(st.integers(0, 60)) * GIB,
        claimed_vcpus=draw(st.sampled_from((0, 0, 0.1, 0.3, 3, 9))),
        claimed_memory=draw(st.integers(0, 5)) * GIB,
        claimed_disk=draw(st.integers(0, 20)) * GIB,
        kinds=frozenset(kinds) if draw(st.booleans()) else frozenset({"vm", "container:app"}),
        image_ids=frozenset(draw(st.sets(st.sampled_from(("i1", "i2"))))),
        bridges=frozenset(draw(st.sets(st.sampled_from(("br0", "br1"))))),
        overlay_mtu=draw(st.sampled_from((0, 1430, 1450))),
        vlans=draw(st.booleans()),
        ports=frozenset(draw(st.lists(ports, max_size=2))),
    )


@st.composite
def requests(draw: st.DrawFn, number: int = 0) -> PlacementRequest:
    """Any request; the choosy fields mostly empty, so that something fits."""

    def seldom(strategy: st.SearchStrategy[Any], otherwise: Any) -> Any:
        return draw(strategy) if draw(st.integers(0, 4)) == 0 else otherwise

    kind = draw(st.sampled_from(Kind))
    init = draw(st.sampled_from(Init)) if kind is Kind.CONTAINER else None
    an_id = st.integers(0, 7).map(lambda n: f"host-{n:03}")
    return request(
        number,
        project_id=draw(st.sampled_from(("p", "p", "q"))),
        kind=kind,
        init=init,
        vcpus=draw(cpus),
        memory=draw(st.integers(1, 4)) * GIB,
        disk=draw(st.integers(0, 20)) * GIB,
        labels=draw(labels),
        architecture=seldom(st.sampled_from(("x86_64", "aarch64")), None),
        require=seldom(labels, {}),
        prefer=seldom(labels, {}),
        host_id=seldom(an_id, None),
        spread_by=seldom(st.sampled_from(SCOPES), None),
        affinity=seldom(st.lists(affinities, max_size=2).map(tuple), ()),
        image_id=seldom(st.sampled_from(("i1", "i2")), None),
        bridges=seldom(st.frozensets(st.sampled_from(("br0", "br1"))), frozenset()),
        overlay_mtu=seldom(st.sampled_from((1430, 1450)), 0),
        vlans=seldom(st.just(True), False),
        volume_host_ids=seldom(st.frozensets(an_id, max_size=2), frozenset()),
        ports=seldom(st.frozensets(ports, max_size=2), frozenset()),
        live_host_ids=seldom(st.frozensets(an_id, max_size=4), frozenset()),
    )


@st.composite
def batches(draw: st.DrawFn, most: int = 6) -> list[PlacementRequest]:
    return [draw(requests(number)) for number in range(draw(st.integers(1, most)))]


@st.composite
def placed(draw: st.DrawFn, on: list[HostView]) -> list[PlacedWorkload]:
    """Workloads on some of the hosts."""
    if not on:
        return []
    return [
        PlacedWorkload(
            id=f"placed-{number}",
            project_id=draw(st.sampled_from(("p", "q"))),
            host_id=draw(st.sampled_from(on)).id,
            labels=draw(labels),
            affinity=draw(st.lists(affinities, max_size=1).map(tuple)),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    machines = draw(hosts())
    return Fleet(both(draw(clusters)), machines, draw(placed(machines)))


def both(one: ClusterView) -> list[ClusterView]:
    """A cluster, and the other one that some hosts are in."""
    return [one, ClusterView(id="other", name="other")]
