"""Everything is copied, from each database to each, and proven; what fails leaves nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.fixtures.postgresql import PostgresqlServer
from tests.store.inventory import NOW, Inventory, make_event
from virtmgr.domain.errors import Conflict, Unavailable
from virtmgr.domain.usage_history import MINUTE, UsagePoint, UsageSlice
from virtmgr.ports.unit_of_work import ListQuery
from virtmgr.services.container import Services
from virtmgr.services.leadership import Leader
from virtmgr.store import migrate, rows, transfer
from virtmgr.store.engine import make_engine, make_migration_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'target.db'}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


def _fill(units: SqlUnitOfWorkFactory, count: int = 3) -> Inventory:
    """Rows with everything that is hard: references within a table, documents, NULLs, numbers."""
    made = Inventory()
    with units() as uow:
        made.save(uow)
        made.host.facts = {"float": 1.0, "large": 1e5, "tiny": 1e-7, "text": "ü\u2028", "no": None}
        original = made.make_workload("original")
        clones = [made.make_workload(f"clone{n}", clone_of=original.id) for n in range(count)]
        for workload in (original, *clones):
            uow.workloads.add(workload)
        uow.flush()
        original.clone_of = clones[-1].id  # whichever comes first, it refers to a later one
        spent = UsageSlice(end=NOW, seconds=MINUTE, host=UsagePoint(cpus=0.25))
        uow.usage_history.add(made.host.id, [spent])
        for number in range(count):
            uow.events.append(make_event(message=f"event {number}"))
        uow.commit()
    return made


def test_everything_is_there_and_the_same(
    url: str, units: SqlUnitOfWorkFactory, target: str, tmp_path: Path
) -> None:
    made = _fill(units)
    with units() as uow:  # numbers of events that are gone are not given again
        uow._session.execute(text("DELETE FROM events WHERE sequence = 3"))
        uow.commit()
    proofs = {proof.table: proof for proof in transfer.convert(url, target)}
    assert proofs["workloads"].rows == 4
    assert proofs["events"].rows == 2
    assert proofs["projects"].sha256 != proofs["users"].sha256
    assert migrate.current_revision(target) == migrate.head_revision()
    with closing(SqlUnitOfWorkFactory(make_engine(target))) as copy:
        with units(read_only=True) as here, copy(read_only=True) as there:
            for repository in ("hosts", "projects", "workloads", "users", "images", "networks"):
                mine = getattr(here, repository).list(ListQuery()).items
                assert mine == getattr(there, repository).list(ListQuery()).items
            found = there.hosts.get(made.host.id)
            assert found is not None
            assert found.facts == made.host.facts
            used = there.usage_history.points([made.host.id], None, MINUTE, NOW - timedelta(1))
            assert [point.point.cpus for point in used] == [0.25]
        with copy() as uow:
            uow.events.append(make_event(message="the next"))
            uow.commit()
            assert uow.events.last_sequence() == 4
    back = transfer.convert(target, f"sqlite:///{tmp_path / 'back.db'}")
    assert {proof.table: proof for proof in back}["workloads"] == proofs["workloads"]


def test_what_holds_something_is_left_alone(
    url: str, units: SqlUnitOfWorkFactory, target: str
) -> None:
    _fill(units)
    transfer.convert(url, target)
    with pytest.raises(Conflict) as refused:
        transfer.convert(url, target)
    assert refused.value.code == "not_empty"
    with pytest.raises(Conflict):
        transfer.convert(url, url)


def test_a_running_control_plane_is_noticed(
    url: str, units: SqlUnitOfWorkFactory, target: str
) -> None:
    leader = Leader(Services(units=units, blobs=None))  # type: ignore[arg-type]
    leader.look()
    stop = threading.Event()
    leading = threading.Thread(target=leader.run, args=(stop,))  # a slow machine needs renewals
    leading.start()
    try:
        with pytest.raises(Conflict) as refused:
            transfer.convert(url, target)
    finally:
        stop.set()
        leading.join()
    assert refused.value.code == "control_plane_running"
    transfer.convert(url, target)


def test_what_fails_may_be_begun_again(
    url: str, units: SqlUnitOfWorkFactory, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(units)
    real = rows.proof_of

    def damaged(connection: object, table: object) -> rows.Proof:
        proof = real(connection, table)  # type: ignore[arg-type]
        return replace(proof, rows=99) if proof.table == "workloads" else proof

    monkeypatch.setattr(rows, "proof_of", damaged)
    with pytest.raises(Unavailable) as refused:
        transfer.convert(url, target)
    assert refused.value.code == "copy_differs"
    monkeypatch.undo()
    with migrate.locked(make_migration_engine(target)) as connection:
        assert not rows.tables_of(connection), "not even the schema is left"
    transfer.convert(url, target)
