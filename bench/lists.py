"""How long a page of a list takes in a large inventory, and how that grows.

    python -m bench.lists [--hosts 5000] [--workloads 100000] [--sqlite] [--once]

Pages of 50 workloads, sorted by each column that is offered, both ways, and filtered: the slower of
the first page and the third, asked of the repository (no HTTP, no schemas), by the time that passes
and by the CPU time of this process. The inventory is made up by SQL. It is done at a tenth, a third
and all of the size unless ``--once``; the exponent is that from the first size to the last.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert, select, text

from tests.fixtures.postgresql import running_server
from tests.store.inventory import Inventory
from virtmgr.domain.ids import new_id
from virtmgr.domain.workload import State
from virtmgr.ports.unit_of_work import ListQuery
from virtmgr.store import migrate, tables
from virtmgr.store.engine import make_engine
from virtmgr.store.repositories.workloads import SqlWorkloads
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_ROUNDS = 7
_PROJECTS = 20
_IMAGES = 30
_CHUNK = 5000  # rows of one statement
# In few names, in none, in all; of two letters in many and in none, of one in many and in none.
_PARTS = ("0123", "zzz", "workload", "99", "zz", "9", "z")
_ORDERS_OF_PARTS = {"by name": "name", "newest first": "-created_at", "by host": "host"}


@dataclass(frozen=True)
class Took:
    """Milliseconds of a page, the median: of time that passed, and of this process's CPU."""

    passed: float
    own: float


@contextmanager
def database(*, sqlite: bool) -> Iterator[str]:
    """The address of an empty one, which goes at the end."""
    if sqlite:
        with tempfile.TemporaryDirectory() as directory:
            yield f"sqlite:///{Path(directory) / 'virtmgr.db'}"
    else:
        with running_server({"shared_buffers": "256MB"}) as server:
            yield server.url(server.create_database())


def fill(engine: Engine, hosts: int, workloads: int, seed: int = 1) -> str:
    """Make them up; the id of a project that has a twentieth of them."""
    inventory, units = Inventory(), SqlUnitOfWorkFactory(engine)
    pattern = inventory.make_workload()
    with units() as uow:
        inventory.save(uow)
        uow.workloads.add(pattern)
        uow.commit()
    units.close()
    with engine.begin() as connection:
        host_ids = _copies(connection, tables.hosts, hosts, "host")
        project_ids = _copies(connection, tables.projects, _PROJECTS, "project")
        image_ids = _copies(connection, tables.images, _IMAGES, "image")
        random_ = random.Random(seed)
        states = [*[State.RUNNING] * 80, *[State.STOPPED] * 15, *[State.FAILED] * 5]

        def differ(row: dict[str, Any], number: int) -> None:
            row["host_id"] = random_.choice(host_ids) if number % 50 else None
            row["project_id"] = random_.choice(project_ids)
            row["image_id"] = random_.choice(image_ids)
            row["claim_vcpus"] = random_.choice((0.5, 1.0, 2.0, 4.0))
            row["claim_memory"] = random_.choice((1, 2, 4, 8)) << 30
            row["status"] = row["status"].model_copy(update={"state": random_.choice(states)})

        _copies(connection, tables.workloads, workloads, "workload", differ)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    return project_ids[0]


def _copies(
    connection: Any,
    table: Any,
    count: int,
    name: str,
    differ: Callable[[dict[str, Any], int], None] | None = None,
) -> list[str]:
    """Rows like the first one of a table, with ids and names of their own; their ids."""
    writable = [column for column in table.c if column.computed is None]
    pattern = connection.execute(select(*writable).limit(1)).mappings().one()
    made: list[str] = []
    for begin in range(0, count, _CHUNK):
        rows = []
        for number in range(begin, min(begin + _CHUNK, count)):
            row = {**pattern, "id": new_id(), "name": f"{name}-{number:06d}"}
            if differ is not None:
                differ(row, number)
            rows.append(row)
        connection.execute(insert(table), rows)
        made += [row["id"] for row in rows]
    return made


def queries(project: str) -> dict[str, ListQuery]:
    """What is asked, each by its name."""
    signs = ("", "-")
    sorts = {f"{sign}{name}": ListQuery(sort=f"{sign}{name}", limit=50)
             for name in SqlWorkloads.listing.orders for sign in signs}  # fmt: skip
    failed, own = {"state": (State.FAILED,)}, {"project": (project,)}
    return sorts | {
        "failed, newest first": ListQuery(filters=failed, sort="-created_at", limit=50),
        "failed, by host": ListQuery(filters=failed, sort="host", limit=50),
        "of a project, by name": ListQuery(filters=own, sort="name", limit=50),
        "of a project, by host": ListQuery(filters=own, sort="host", limit=50),
        **{
            f"name contains {part}, {order}": ListQuery(text=part, sort=sort, limit=50)
            for part in _PARTS
            for order, sort in _ORDERS_OF_PARTS.items()
        },
        "of a project, name contains 0123": ListQuery(text="0123", filters=own, limit=50),
        "labelled": ListQuery(labels={"tier": "web"}, sort="-created_at", limit=50),
        "counted": ListQuery(count=True, limit=50),
        "failed, counted": ListQuery(filters=failed, count=True, limit=50),
    }


def measure(units: SqlUnitOfWorkFactory, query: ListQuery) -> Took:
    """The slower of the first page and the third one."""
    return max((_median(units, query, skip) for skip in (0, 2)), key=lambda took: took.passed)


def _median(units: SqlUnitOfWorkFactory, query: ListQuery, skip: int) -> Took:
    cursor = None
    for _ in range(skip):
        with units(read_only=True) as uow:
            cursor = uow.workloads.list(_at(query, cursor)).next_cursor
    passed, own = [], []
    for _ in range(_ROUNDS):
        with units(read_only=True) as uow:
            clock, cpu = time.perf_counter(), time.process_time()
            uow.workloads.list(_at(query, cursor))
            passed.append(time.perf_counter() - clock)
            own.append(time.process_time() - cpu)
    return Took(statistics.median(passed) * 1000, statistics.median(own) * 1000)


def _at(query: ListQuery, cursor: str | None) -> ListQuery:
    fields = {name: getattr(query, name) for name in query.__dataclass_fields__}
    return ListQuery(**{**fields, "cursor": cursor})


def measure_all(hosts: int, workloads: int, *, sqlite: bool) -> dict[str, Took]:
    """Each page's time at this size."""
    with database(sqlite=sqlite) as url:
        migrate.upgrade(url)
        engine = make_engine(url)
        project = fill(engine, hosts, workloads)
        units = SqlUnitOfWorkFactory(engine)
        try:
            return {name: measure(units, query) for name, query in queries(project).items()}
        finally:
            units.close()
            engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=5000)
    parser.add_argument("--workloads", type=int, default=100_000)
    parser.add_argument("--sqlite", action="store_true", help="instead of PostgreSQL")
    parser.add_argument("--once", action="store_true", help="at this size only")
    given = parser.parse_args()
    shares = (1.0,) if given.once else (0.1, 0.33, 1.0)
    sizes = [(int(given.hosts * share), int(given.workloads * share)) for share in shares]
    found = [measure_all(*size, sqlite=given.sqlite) for size in sizes]
    kind = "SQLite" if given.sqlite else "PostgreSQL"
    print(f"{kind}, {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}; milliseconds")
    heads = [f"{workloads:,} on {hosts:,} hosts" for hosts, workloads in sizes]
    print("| page of 50 | " + " | ".join(heads) + " | exponent | own CPU |")
    print("|---|" + "---|" * (len(sizes) + 2))
    for name in found[0]:
        times = [one[name].passed for one in found]
        cells = " | ".join(f"{one:.1f}" for one in times)
        growth = f"{_exponent(sizes, times):.2f}" if len(sizes) > 1 else ""
        print(f"| {name} | {cells} | {growth} | {found[-1][name].own:.1f} |")


def _exponent(sizes: list[tuple[int, int]], times: list[float]) -> float:
    return math.log(times[-1] / times[0]) / math.log(sizes[-1][1] / sizes[0][1])


if __name__ == "__main__":
    main()
