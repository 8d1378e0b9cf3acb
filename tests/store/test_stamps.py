"""Equal stamps say that nothing was committed in between, whoever committed."""

from __future__ import annotations

from tests.store.inventory import Inventory
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


def test_only_commits_alter_the_stamp(
    units: SqlUnitOfWorkFactory, inventory: Inventory, url: str
) -> None:
    before = units.stamp()
    with units(read_only=True) as uow:
        assert uow.projects.get(inventory.project.id) is not None
    with units() as uow:
        uow.settings.set("tried", "yes")  # and given up
    _change(units, "one")
    after = units.stamp()
    assert after != before
    assert units.stamp() == after
    other = SqlUnitOfWorkFactory(make_engine(url))  # as another process has it
    assert other.stamp() == other.stamp()
    _change(other, "two")
    other.close()
    assert units.stamp() != after


def _change(units: SqlUnitOfWorkFactory, value: str) -> None:
    with units() as uow:
        uow.settings.set("stamped", value)
        uow.commit()
