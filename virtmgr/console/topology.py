"""The picture of networks, hosts and workloads: where everything stands. Pure; the template draws.

Networks are vertical lanes. Each workload is a row below its host, with a port where it is on a
network. Where there are too many workloads, each host is a row, and a port says how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST_LANES: Final = 16
MOST_WORKLOADS: Final = 60
MOST_HOSTS: Final = 60

_LEFT: Final = 210  # for names
_LANE: Final = 150
_HEAD: Final = 66
_ROW: Final = 28
_NOWHERE: Final = "not placed"


@dataclass(frozen=True)
class Lane:
    """A network."""

    x: int
    network: Mapping[str, Any]


@dataclass(frozen=True)
class Port:
    """Where a row is on a network."""

    x: int
    type: str  # of the network
    network_id: str
    text: str  # its address, or how many workloads


@dataclass(frozen=True)
class Row:
    """A host, or a workload of the host above."""

    y: int
    name: str
    host: Mapping[str, Any] | None = None
    workload: Mapping[str, Any] | None = None
    ports: Sequence[Port] = ()

    @property
    def end(self) -> int:
        """How far its wire goes."""
        return max((port.x for port in self.ports), default=_LEFT)


@dataclass(frozen=True)
class Picture:
    """All that is drawn."""

    width: int
    height: int
    lanes: Sequence[Lane]
    rows: Sequence[Row]
    counted: bool  # hosts with numbers instead of workloads
    left_out: int  # hosts

    @property
    def bottom(self) -> int:
        """Where lanes end."""
        return self.height - _ROW // 2


def picture(
    networks: Sequence[Mapping[str, Any]], workloads: Sequence[Mapping[str, Any]] | None
) -> Picture:
    """Where everything stands.

    :param networks: of the API's topology, at most MOST_LANES.
    :param workloads: all there are; None: they are too many.
    """
    lanes = [Lane(_LEFT + _LANE * place + 20, one) for place, one in enumerate(networks)]
    if workloads is None:
        rows, left_out = _host_rows(lanes)
    else:
        rows, left_out = _workload_rows(lanes, workloads), 0
    return Picture(
        width=_LEFT + _LANE * max(1, len(lanes)) + 20,
        height=_HEAD + _ROW * len(rows) + _ROW,
        lanes=lanes,
        rows=rows,
        counted=workloads is None,
        left_out=left_out,
    )


def _y(place: int) -> int:
    return _HEAD + _ROW * place + _ROW // 2


def _workload_rows(lanes: Sequence[Lane], workloads: Sequence[Mapping[str, Any]]) -> list[Row]:
    by_host: dict[str, list[Mapping[str, Any]]] = {}
    for workload in workloads:
        by_host.setdefault((workload["host"] or {}).get("name", ""), []).append(workload)
    rows: list[Row] = []
    for name in sorted(by_host, key=lambda name: (not name, name)):
        rows.append(Row(_y(len(rows)), name or _NOWHERE, host=by_host[name][0]["host"] or {}))
        for one in sorted(by_host[name], key=lambda each: str(each["name"])):
            ports = _ports_of(lanes, one)
            rows.append(Row(_y(len(rows)), one["name"], workload=one, ports=ports))
    return rows


def _ports_of(lanes: Sequence[Lane], workload: Mapping[str, Any]) -> list[Port]:
    found = []
    for lane in lanes:
        for nic in workload["nics"]:
            if nic["network"]["id"] == lane.network["id"]:
                text = nic["addresses"][0] if nic["addresses"] else nic["mac"]
                found.append(Port(lane.x, lane.network["type"], lane.network["id"], text))
                break
    return found


def _host_rows(lanes: Sequence[Lane]) -> tuple[list[Row], int]:
    hosts: dict[str, Mapping[str, Any]] = {}
    ports: dict[str, list[Port]] = {}
    for lane in lanes:
        for load in lane.network["loads"]:
            host = load["host"] or {}
            name = host.get("name", "")
            hosts[name] = host
            port = Port(lane.x, lane.network["type"], lane.network["id"], str(load["workloads"]))
            ports.setdefault(name, []).append(port)
    names = sorted(hosts, key=lambda name: (not name, name))
    rows = [
        Row(_y(place), name or _NOWHERE, host=hosts[name], ports=ports[name])
        for place, name in enumerate(names[:MOST_HOSTS])
    ]
    return rows, max(0, len(names) - MOST_HOSTS)
