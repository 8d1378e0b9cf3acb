"""Microsoft's "Azure Trace for Packing 2020": a SQLite file with the tables ``vm`` and ``vmType``.

https://github.com/Azure/AzurePublicDataset/blob/master/AzureTracesForPacking2020.md (CC-BY); the
file is packing_trace_zone_a_v1.sqlite. Times are days: requests come from 0 to 14, and from before
0 (what was there already); they end until 90, and ``endtime`` is NULL of what lived on. The amounts
are shares of a machine, and differ by its model (``machineId``): a trace is read for one model, and
those types that it cannot run are left out. Disks and network cards (``hdd``, ``ssd``, ``nic``) are
not looked at, nor is ``priority``: what could be evicted lives as long as it did.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from bench.traces.model import Arrival, Machine, Trace

DAY = 86400.0
VCPUS, MEMORY = 64.0, 256.0  # what a whole machine is taken to have
_FOREVER = 90.0  # days, the cap of the data

_MODELS = """
    SELECT machineId FROM vmType GROUP BY machineId ORDER BY count(*) DESC, machineId LIMIT 1
"""
_VMS = """
    SELECT vm.vmId, vm.starttime, vm.endtime, min(type.core), min(type.memory)
    FROM vm JOIN vmType AS type ON type.vmTypeId = vm.vmTypeId AND type.machineId = :model
    WHERE vm.starttime < :days AND coalesce(vm.endtime, :forever) > 0
    GROUP BY vm.vmId ORDER BY vm.starttime, vm.vmId
"""


def read(file: Path, machines: int, days: float = 14.0, model: int | None = None) -> Trace:
    """The requests of the first days.

    :param machines: how many of the model there are to be; the data do not say.
    :param model: a ``machineId``; None: the one that runs the most types.
    :raises sqlite3.Error: the file is not such a database.
    :raises ValueError: it has no types.
    """
    uri = f"{file.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        if model is None:
            found = connection.execute(_MODELS).fetchone()
            if found is None:
                raise ValueError(f"reading {file}: its table vmType is empty")
            model = found[0]
        given = {"model": model, "days": days, "forever": _FOREVER}
        rows = connection.execute(_VMS, given).fetchall()
    arrivals = tuple(
        Arrival(
            name=str(vm),
            at=max(0.0, start) * DAY,
            ends=(_FOREVER if end is None else end) * DAY,
            vcpus=core * VCPUS,
            memory=memory * MEMORY,
        )
        for vm, start, end, core, memory in rows
    )
    fleet = tuple(
        Machine(f"m{n:05}", VCPUS, MEMORY, f"z{n % 3}", f"r{n // 20}") for n in range(machines)
    )
    return Trace(fleet, arrivals, days * DAY)
