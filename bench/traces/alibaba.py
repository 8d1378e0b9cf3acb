"""Alibaba's cluster trace of 2018: ``machine_meta.csv``, ``container_meta.csv``; no headers.

https://github.com/alibaba/clusterdata/blob/master/cluster-trace-v2018/schema.md has the columns in
the order of the files (trace_2018.md, beside it, names them in another one). A row is what was seen
of a machine or a container at a time, in seconds; 0 is before the eight days or after them. What
has stopped is told again and again. Memory is a share of the largest machine, 0 to 100, where -1
and 101 stand for nothing; 100 of ``cpu_request`` are one core. Containers of one ``app_du`` should
be spread over failure domains: they are read as a group whose members require hosts of their own.
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
    """The machines, and the containers from their first row to the first that says they stopped.

    One that runs again later has run all the while. One that stopped at 0 was there until the end,
    if it was there at all.

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
        if row["cpu_num"] and _is_share(row["mem_size"])
    }
    seconds = _DAYS * 86400.0
    forever = 2 * seconds
    containers: dict[str, Arrival] = {}
    for row in _rows(directory / "container_meta.csv", _CONTAINER):
        name, at = row["container_id"], float(row["time_stamp"])
        known = containers.get(name)
        if row["status"] in _ENDED:
            if known is not None and at > 0:
                containers[name] = replace(known, ends=min(known.ends, at))
        elif known is not None:
            containers[name] = replace(known, ends=forever)
        elif row["cpu_request"] and _is_share(row["mem_size"]):
            containers[name] = Arrival(
                name=name,
                at=at,
                ends=forever,
                vcpus=float(row["cpu_request"]) / 100,
                memory=float(row["mem_size"]) / 100 * MEMORY,
                group=row["app_du"] if grouped and row["app_du"] else None,
            )
    arrivals = sorted(containers.values(), key=lambda one: (one.at, one.name))
    return Trace(tuple(machines.values()), tuple(arrivals), seconds)


def _is_share(text: str) -> bool:
    return bool(text) and 0 < float(text) <= 100


def _rows(file: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """In the order of their time, which the files are not in."""
    with file.open(newline="") as lines:
        rows = [dict(zip(columns, row, strict=False)) for row in csv.reader(lines)]
    yield from sorted(rows, key=lambda row: float(row["time_stamp"]))
