"""What several processes do to one database at once: ``python -m tests.store.workers URL JOB …``.

Each says when it is ready, waits for a line, and prints what it achieved as one JSON line.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.store.inventory import NOW, make_event
from virtmgr.domain.errors import NameTaken, NoPlacement, QuotaExceeded
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import Address, free_addresses
from virtmgr.domain.scheduling import PlacementRequest
from virtmgr.domain.workload import Init, Kind
from virtmgr.services import placement
from virtmgr.services.known_hosts import KnownHosts
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

Units = SqlUnitOfWorkFactory
THREADS = 4


def charge(units: Units, project_id: str) -> list[str]:
    """Take one workload and 0.1 vCPUs at a time until the quota refuses."""
    taken: list[str] = []
    while True:
        try:
            with units() as uow:
                uow.quotas.charge(project_id, {"workloads": 1, "vcpus": 0.1})
                uow.commit()
        except QuotaExceeded:
            return taken
        taken.append("one")


def claim(units: Units, host_id: str) -> list[str]:
    """Claim 0.7 vCPUs at a time while they fit what was read, as a scheduler does."""
    taken: list[str] = []
    while True:
        with units(read_only=True) as uow:
            host = uow.hosts.get(host_id)
        assert host is not None
        if host.claimed_vcpus + 0.7 > host.capacity_vcpus:
            return taken
        with units() as uow:
            if uow.hosts.claim(host_id, host.version, vcpus=0.7, memory=1, disk=1):
                uow.commit()
                taken.append("one")


def place(units: Units, cluster_id: str) -> list[str]:
    """Place containers of 0.7 vCPUs, three at a time, as creates do, until no host takes them."""
    taken: list[str] = []
    known, overtaken = KnownHosts(), False
    while True:
        requests = [
            PlacementRequest(
                id=new_id(), name="w", project_id=new_id(), cluster_id=cluster_id,
                kind=Kind.CONTAINER, init=Init.APP, vcpus=0.7, memory=1, disk=1,
            )
            for _ in range(3)
        ]  # fmt: skip
        try:
            with units() as uow:
                found = placement.decide(uow, requests, known=known, alone=overtaken)
                placement.commit(uow, requests, found, known=known, moving=False)
                uow.commit()
        except placement.Overtaken:
            overtaken = True
        except NoPlacement:
            return taken
        else:
            overtaken = False
            taken += [str(one.host_id) for one in found]


def reserve(units: Units, network_id: str) -> list[str]:
    """Reserve the first free address, fifteen times."""
    taken: list[str] = []
    while len(taken) < 15:
        try:
            with units() as uow:
                free = free_addresses("10.40.0.0/16", uow.addresses.taken(network_id))
                address = Address(
                    id=new_id(),
                    network_id=network_id,
                    address=next(free),
                    nic_id=None,
                    created_at=NOW,
                )
                uow.addresses.add(address)
                uow.commit()
        except NameTaken:
            continue
        taken.append(address.address)
    return taken


def take(units: Units, verb: str) -> list[str]:
    """Take operations until none is left."""
    taken: list[str] = []
    while True:
        now = datetime.now(UTC)
        with units() as uow:
            operation = uow.operations.take([verb], "me", now + timedelta(hours=1), now)
            uow.commit()
        if operation is None:
            return taken
        taken.append(operation.id)


def number(units: Units, host_id: str) -> list[str]:
    """Draw desired revisions of a host."""
    drawn = []
    for _ in range(20):
        with units() as uow:
            drawn.append(str(uow.hosts.next_revision(host_id)))
            uow.commit()
    return drawn


def redeem(units: Units, secrets: str) -> list[str]:
    """Redeem every ticket."""
    redeemed = []
    for secret in secrets.split(","):
        with units() as uow:
            if uow.tickets.redeem(secret, NOW) is not None:
                redeemed.append(secret)
            uow.commit()
    return redeemed


def log(units: Units, _nothing: str) -> list[str]:
    """Append events, and dawdle in the transaction before and after."""
    logged = []
    for _ in range(20):
        message = new_id()
        with units() as uow:
            uow.events.append(make_event(message=message))
            time.sleep(random.uniform(0, 0.004))
            uow.commit()
        logged.append(message)
    return logged


def dawdle(units: Units, key: str) -> list[str]:
    """Write, and yield to other greenlets while the transaction is open."""
    for _ in range(5):
        with units() as uow:
            value = int(uow.settings.get(key) or 0)
            time.sleep(0.002)
            uow.settings.set(key, str(value + 1))
            uow.commit()
        with units(read_only=True) as uow:
            uow.settings.get(key)
    return []


JOBS: dict[str, Callable[[Units, str], list[str]]] = {
    job.__name__: job for job in (charge, claim, place, reserve, take, number, redeem, log, dawdle)
}


def in_threads(units: Units, job: str, argument: str) -> list[str]:
    """The job in several threads at once; what all of them achieved."""
    with ThreadPoolExecutor(THREADS) as pool:
        runs = [pool.submit(JOBS[job], units, argument) for _ in range(THREADS)]
        return [item for run in runs for item in run.result()]


def in_greenlets(units: Units, job: str, argument: str) -> list[str]:
    """The job in several greenlets at once, everything patched."""
    import gevent

    runs: list[Any] = [gevent.spawn(JOBS[job], units, argument) for _ in range(20)]
    gevent.joinall(runs, raise_error=True)
    return [item for run in runs for item in run.value]


def main(url: str, job: str, argument: str, how: str) -> None:
    units = SqlUnitOfWorkFactory(make_engine(url))
    with units(read_only=True) as uow:
        uow.settings.get("warm")
    print("ready", flush=True)
    sys.stdin.readline()
    run = in_greenlets if how == "greenlets" else in_threads
    print(json.dumps(run(units, job, argument)))
    units.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
