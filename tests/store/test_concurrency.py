"""Law 4, never too much: real threads in two processes at once, on both databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tests.store import workers
from tests.store.inventory import NOW, Inventory, make_event
from virtmgr.config.resources import resource_path
from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import StreamTicket
from virtmgr.ports.unit_of_work import ListQuery
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_PATCHED = "from gevent import monkey; monkey.patch_all(); "
_RUN = "import sys; from tests.store.workers import main; main(*sys.argv[1:])"


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    code = (_PATCHED if arguments[-1] == "greenlets" else "") + _RUN
    root = resource_path("alembic.ini").parent
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def _go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def _result(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    result: list[str] = json.loads(output)
    return result


def _everywhere(units: SqlUnitOfWorkFactory, url: str, job: str, argument: str) -> list[str]:
    """The job in threads of this process and of another one; what all achieved together."""
    with _process(url, job, argument, "threads") as other:
        _go(other)
        here = workers.in_threads(units, job, argument)
        return here + _result(other)


def test_quota_is_never_exceeded(
    units: SqlUnitOfWorkFactory, inventory: Inventory, url: str
) -> None:
    with units() as uow:
        quota = uow.quotas.lock(inventory.project.id)
        assert quota is not None
        quota.limit_workloads = 400
        quota.limit_vcpus = 35.05
        uow.commit()
    done = _everywhere(units, url, "charge", inventory.project.id)
    assert len(done) == 350
    with units(read_only=True) as uow:
        quota = uow.quotas.get(inventory.project.id)
        assert quota is not None
        assert (quota.used_workloads, quota.used_vcpus) == (350, 35.0)


def test_claims_never_exceed_capacity(
    units: SqlUnitOfWorkFactory, inventory: Inventory, url: str
) -> None:
    with units() as uow:
        host = uow.hosts.lock(inventory.host.id)
        assert host is not None
        host.capacity_vcpus = 70.6
        uow.commit()
    done = _everywhere(units, url, "claim", inventory.host.id)
    assert len(done) == 100
    with units(read_only=True) as uow:
        host = uow.hosts.get(inventory.host.id)
        assert host is not None
        assert (host.claimed_vcpus, host.claimed_memory, host.version) == (70.0, 100, 102)


def test_placements_never_exceed_capacity(
    units: SqlUnitOfWorkFactory, inventory: Inventory, url: str
) -> None:
    driver = {"name": "oci", "healthy": True, "kinds": ["container"], "inits": ["app"]}
    more = [
        inventory.make_host(name=f"more{number}", capacity_vcpus=10, facts={"drivers": [driver]})
        for number in range(6)
    ]
    with units() as uow:
        for host in more:
            uow.hosts.add(host)
        uow.commit()
    done = _everywhere(units, url, "place", inventory.cluster.id)
    with units(read_only=True) as uow:
        hosts = [host for host in uow.hosts.all() if host.id != inventory.host.id]
    assert all(40 - host.claimed_vcpus >= 0 for host in hosts)  # overcommitted four times
    assert {host.id: host.claimed_memory for host in hosts} == Counter(done)
    assert len(done) > 6 * 57 - 2 * workers.THREADS * 3


def test_addresses_are_unique(units: SqlUnitOfWorkFactory, inventory: Inventory, url: str) -> None:
    done = _everywhere(units, url, "reserve", inventory.network.id)
    assert len(done) == len(set(done)) == 2 * workers.THREADS * 15
    with units(read_only=True) as uow:
        assert uow.addresses.taken(inventory.network.id) == set(done)


def test_operations_are_taken_once(
    units: SqlUnitOfWorkFactory, inventory: Inventory, url: str
) -> None:
    made = [
        inventory.make_operation(new_id(), verb="import", created_at=NOW + timedelta(seconds=n))
        for n in range(100)
    ]
    with units() as uow:
        for operation in made:
            uow.operations.add(operation)
        uow.commit()
    done = _everywhere(units, url, "take", "import")
    assert sorted(done) == [operation.id for operation in made]


def test_revisions_are_drawn_once(
    units: SqlUnitOfWorkFactory, inventory: Inventory, url: str
) -> None:
    done = _everywhere(units, url, "number", inventory.host.id)
    assert sorted(map(int, done)) == list(range(1, 2 * workers.THREADS * 20 + 1))


def test_tickets_are_redeemed_once(
    units: SqlUnitOfWorkFactory, inventory: Inventory, url: str
) -> None:
    secrets = [f"secret{number}" for number in range(25)]
    workload = inventory.make_workload()
    with units() as uow:
        uow.workloads.add(workload)
        for secret in secrets:
            uow.tickets.add(
                StreamTicket(
                    id=new_id(),
                    secret_hash=secret,
                    workload_id=workload.id,
                    host_id=inventory.host.id,
                    user_id=None,
                    action="exec",
                    expires_at=NOW + timedelta(seconds=30),
                )
            )
        uow.commit()
    done = _everywhere(units, url, "redeem", ",".join(secrets))
    assert sorted(done) == sorted(secrets)


@pytest.mark.usefixtures("inventory")
def test_a_poller_misses_no_event(units: SqlUnitOfWorkFactory, url: str) -> None:
    seen: list[str] = []
    written = threading.Event()

    def poll() -> None:
        last = 0
        while True:
            complete = written.is_set()
            with units(read_only=True) as uow:
                events = uow.events.after(last, limit=7)
            seen.extend(event.message for event in events)
            if events:
                last = events[-1].sequence or 0
            elif complete:
                return
            else:
                time.sleep(0.001)  # else it leaves the writers no time with Python's lock

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        done = _everywhere(units, url, "log", "")
    finally:
        written.set()
        poller.join()
    assert len(seen) == len(done) == 2 * workers.THREADS * 20
    assert set(seen) == set(done)
    with units(read_only=True) as uow:
        assert len(uow.events.list(ListQuery(limit=500)).items) == len(done)


def test_greenlets_do_not_stop_each_other(
    units: SqlUnitOfWorkFactory, backend: str, url: str
) -> None:
    """Two gevent processes whose units yield in the middle: neither deadlocks nor times out."""
    with units() as uow:
        uow.settings.set("one", "0")
        uow.settings.set("two", "0")
        uow.commit()
    with (
        _process(url, "dawdle", "one", "greenlets") as one,
        _process(url, "dawdle", "two", "greenlets") as two,
    ):
        _go(one, two)
        _result(one)
        _result(two)
    if backend == "sqlite":  # on PostgreSQL read-modify-write needs a lock; settings have none
        with units(read_only=True) as uow:
            assert (uow.settings.get("one"), uow.settings.get("two")) == ("100", "100")


def test_readers_see_one_moment_and_wait_for_no_writer(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    with units() as writer, units(read_only=True) as before:
        assert before.volumes.list(ListQuery()).items == []
        writer.volumes.add(inventory.make_volume())
        with units(read_only=True) as meanwhile:
            assert meanwhile.volumes.list(ListQuery()).items == []
        writer.commit()
        assert before.volumes.list(ListQuery()).items == []
        with units(read_only=True) as after:
            assert len(after.volumes.list(ListQuery()).items) == 1


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.postgresql
def test_an_event_waits_for_earlier_ones(units: SqlUnitOfWorkFactory, url: str) -> None:
    """A unit with a lower number that has not committed yet holds the later ones back."""
    later_is_done = threading.Event()

    def append_later() -> None:
        with units() as later:
            later.events.append(make_event(message="later"))
            later.commit()
        later_is_done.set()

    other = SqlUnitOfWorkFactory(make_engine(url))
    with other() as earlier:
        earlier.events.append(make_event(message="earlier"))
        assert earlier.events.last_sequence() == 1  # writes it, and so takes the lock
        thread = threading.Thread(target=append_later)
        thread.start()
        assert not later_is_done.wait(0.3)
        with units(read_only=True) as uow:
            assert uow.events.after(0, limit=9) == []
        earlier.commit()
    thread.join()
    with units(read_only=True) as uow:
        assert [e.message for e in uow.events.after(0, limit=9)] == ["earlier", "later"]
    other.close()
