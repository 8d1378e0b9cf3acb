"""Alibaba's cluster trace of 2018: ``machine_meta.csv``, ``container_meta.csv``; no headers.

https://github.com/alibaba/clusterdata/blob/master/cluster-trace-v2018/schema.txt. A row is what was
seen of a machine or a container at a time; memory is a share of the largest machine, 0 to 100, and
100 of ``cpu_request`` are one core. Containers of one ``app_du`` should be spread over failure
domains: they are read as a group whose members require hosts of their own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.traces.model import Arrival, Machine, Trace

MEMORY = 512.0  # GiB that 100 stands for
_DAYS = 8
_ENDED = frozenset({"stopped", "stop"})
_MACHINE = ("machine_id", "time_stamp", "domain_1", "domain_2", "cpu_num", "mem_size", "status")
_CONTAINER = (
    *("container_id", "machine_id", "time_stamp", "app_du"),
    *("status", "cpu_request", "cpu_limit", "mem_size"),
)


def read(directory: Path, *, grouped: bool = True) -> Trace:
    """The machines, and the containers from their first row to the one that says they stopped.

    :raises FileNotFoundError: a file is not there.
    :raises ValueError: a number is none.
    """
    machines = {
        row["machine_id"]: Machine(
            name=row["machine_id"],
            vcpus=float(row["cpu_num"]),
            memory=float(row["mem_size"]) / 100 * MEMORY,
            zone=row["domain_1"],
            rack=row["domain_2"],
        )
        for row in _rows(directory / "machine_meta.csv", _MACHINE)
        if row["cpu_num"] and row["mem_size"]
    }
    seconds = _DAYS * 86400.0
    containers: dict[str, Arrival] = {}
    for row in _rows(directory / "container_meta.csv", _CONTAINER):
        name, at = row["container_id"], float(row["time_stamp"])
        if row["status"] in _ENDED:
            if name in containers:
                containers[name] = replace(containers[name], ends=at)
        elif name not in containers and row["cpu_request"] and row["mem_size"]:
            containers[name] = Arrival(
                name=name,
                at=at,
                ends=2 * seconds,
                vcpus=float(row["cpu_request"]) / 100,
                memory=float(row["mem_size"]) / 100 * MEMORY,
                group=row["app_du"] if grouped and row["app_du"] else None,
            )
    arrivals = sorted(containers.values(), key=lambda one: (one.at, one.name))
    return Trace(tuple(machines.values()), tuple(arrivals), seconds)


def _rows(file: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """In the order of their time, which the files are not in."""
    with file.open(newline="") as lines:
        rows = [dict(zip(columns, row, strict=False)) for row in csv.reader(lines)]
    yield from sorted(rows, key=lambda row: float(row["time_stamp"]))
