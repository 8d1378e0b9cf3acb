"""Lists: pages, filters, labels, text, and cursors that are not ours."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.store.inventory import NOW, Inventory, make_event
from virtmgr.domain.errors import InvalidRequest
from virtmgr.domain.ids import new_id
from virtmgr.domain.project import Project
from virtmgr.domain.workload import Kind, State, Workload, WorkloadSpec, WorkloadStatus
from virtmgr.ports.unit_of_work import ListQuery
from virtmgr.store import name_order
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

COUNT = 23


@pytest.fixture
def many(units: SqlUnitOfWorkFactory, inventory: Inventory) -> Inventory:
    """Workloads w00 … w22, with few different values in every other column."""
    with units() as uow:
        for number in range(COUNT):
            name = f"w{number:02}"
            is_vm = number % 3 == 0
            kind = Kind.VM if is_vm else Kind.CONTAINER
            labels = {"tier": "web" if number % 2 else "db", "1odd.key/x-y_z": "it's \"%_ö"}
            uow.workloads.add(
                inventory.make_workload(
                    name,
                    kind=kind,
                    spec=WorkloadSpec(name=name, kind=kind, image="debian", labels=labels),
                    status=WorkloadStatus(state=State.RUNNING if number % 4 else State.STOPPED),
                    host_id=inventory.host.id if number % 5 else None,
                    claim_vcpus=0.1 * (number % 3),
                    created_at=NOW + timedelta(seconds=number // 4),
                )
            )
        uow.commit()
    return inventory


def _walk(units: SqlUnitOfWorkFactory, repository: str, **query: Any) -> list[Any]:
    items: list[Any] = []
    cursor = None
    while True:
        with units(read_only=True) as uow:
            page = getattr(uow, repository).list(ListQuery(cursor=cursor, **query))
        assert len(page.items) <= query["limit"]
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items


SORTS = ("name", "created_at", "updated_at", "state", "kind", "host", "project", "image", "vcpus")


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{sort}" for sort in SORTS)])
@pytest.mark.usefixtures("many")
def test_pages_hold_every_row_once_and_in_order(units: SqlUnitOfWorkFactory, sort: str) -> None:
    rows = _walk(units, "workloads", sort=sort, limit=4)
    assert {row.name for row in rows} == {f"w{number:02}" for number in range(COUNT)}
    assert len(rows) == COUNT
    keys: dict[str, Callable[[Workload], Any]] = {
        "name": lambda w: w.name,
        "created_at": lambda w: w.created_at,
        "state": lambda w: w.status.state,
        "kind": lambda w: w.kind,
        "host": lambda w: "host1" if w.host_id else "",
        "vcpus": lambda w: w.claim_vcpus,
    }
    key = keys.get(sort.removeprefix("-"))  # None: the same in all rows
    expected = sorted(
        rows, key=lambda w: (key(w) if key else 0, w.id), reverse=sort.startswith("-")
    )
    assert [row.id for row in rows] == [row.id for row in expected]


@pytest.mark.parametrize("limit", [1, COUNT - 1, COUNT, COUNT + 1])
@pytest.mark.usefixtures("many")
def test_page_borders(units: SqlUnitOfWorkFactory, limit: int) -> None:
    assert len(_walk(units, "workloads", limit=limit)) == COUNT


def _names(units: SqlUnitOfWorkFactory, **query: Any) -> set[int]:
    with units(read_only=True) as uow:
        page = uow.workloads.list(ListQuery(**query))
    return {int(workload.name[1:]) for workload in page.items}


def test_filters(units: SqlUnitOfWorkFactory, many: Inventory) -> None:
    every = set(range(COUNT))
    thirds = {n for n in every if n % 3 == 0}
    assert _names(units, filters={"kind": "vm"}) == thirds
    assert _names(units, filters={"kind": Kind.VM}) == thirds
    assert _names(units, filters={"kind": ("vm", "container")}) == every
    assert _names(units, filters={"state": "stopped"}) == {n for n in every if n % 4 == 0}
    assert _names(units, filters={"state": ("failed", "unknown")}) == set()
    assert _names(units, filters={"state": ()}) == set()
    assert _names(units, filters={"host": many.host.id}) == {n for n in every if n % 5}
    assert _names(units, filters={"host": None}) == {n for n in every if n % 5 == 0}
    assert _names(units, filters={"host": (None, many.host.id)}) == every
    assert _names(units, filters={"image": many.image.id, "kind": "vm"}) == thirds
    assert _names(units, filters={"cluster": new_id()}) == set()
    assert _names(units, filters={"deleting": False}) == every
    assert _names(units, project_ids=frozenset({many.project.id})) == every
    assert _names(units, project_ids=frozenset({new_id()})) == set()
    assert _names(units, project_ids=frozenset()) == set()


def test_state_follows_status(units: SqlUnitOfWorkFactory, many: Inventory) -> None:
    with units() as uow:
        workload = uow.workloads.find(many.project.id, "w01")
        assert workload is not None
        workload.status = WorkloadStatus(state=State.FAILED)
        assert uow.workloads.list(ListQuery(filters={"state": "failed"})).items == [workload]
        uow.commit()
    assert _names(units, filters={"state": "failed"}) == {1}


@pytest.mark.usefixtures("many")
def test_labels(units: SqlUnitOfWorkFactory) -> None:
    odd = {n for n in range(COUNT) if n % 2}
    awkward = {"1odd.key/x-y_z": "it's \"%_ö"}
    assert _names(units, labels={"tier": "web"}) == odd
    assert _names(units, labels={"tier": "web", **awkward}) == odd
    assert _names(units, labels=awkward) == set(range(COUNT))
    assert _names(units, labels={"tier": "we"}) == set()
    assert _names(units, labels={"tier' OR 1=1 --": "web"}) == set()
    assert _names(units, labels={"$.tier": "web"}) == set()


@pytest.mark.usefixtures("many")
def test_text(units: SqlUnitOfWorkFactory) -> None:
    assert _names(units, text="W1") == set(range(10, 20))
    assert _names(units, text="%") == set()
    assert _names(units, text="w_1") == set()


def test_text_is_found_wherever_it_stands(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    """Whatever of a text an index can look for (``store/trigrams.py``)."""
    names = ("a", "ab", "abc", "web-01", "web-1-a", "x--y", "0-1", "weba", "1ab", "database-web")
    with units() as uow:
        for name in names:
            uow.workloads.add(inventory.make_workload(name))
            uow.volumes.add(inventory.make_volume(name=name))
        uow.commit()
    ends = [(begin, begin + size) for begin in range(12) for size in (1, 2, 3, 5)]
    parts = {name[begin:end] for name in names for begin, end in ends} - {""}
    absent = {"zz", "z", "zzz", "-z", "z-", "--a", ".", "a.b", "%", "é", "a'"}
    for part in sorted(parts | absent):
        expected = sorted(name for name in names if part in name)
        with units(read_only=True) as uow:
            for repository in (uow.workloads, uow.volumes):
                for sort in ("name", "-created_at"):
                    page = repository.list(ListQuery(text=part.upper(), sort=sort))
                    assert sorted(item.name for item in page.items) == expected, part


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"sort": "nonsense"}, "sort"),
        ({"sort": "spec"}, "sort"),
        ({"filters": {"colour": "red"}}, "colour"),
        ({"filters": {"state": "flying"}}, "state"),
        ({"filters": {"host": "host1"}}, "host"),
        ({"filters": {"deleting": "maybe"}}, "deleting"),
        ({"filters": {"kind": 3}}, "kind"),
    ],
)
@pytest.mark.usefixtures("inventory")
def test_unknown_columns_and_values(
    units: SqlUnitOfWorkFactory, query: dict[str, Any], field: str
) -> None:
    with units(read_only=True) as uow, pytest.raises(InvalidRequest) as caught:
        uow.workloads.list(ListQuery(**query))
    assert caught.value.field == field
    assert caught.value.hint


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


FORGED = [
    "",
    "x",
    "ö",
    "AAAA",
    "!!!!",
    _encoded("{}"),
    _encoded("[]"),
    _encoded('["name"]'),
    _encoded('["name",1,"x"]'),
    _encoded('["name",null,"x"]'),
    _encoded('["name","a",7]'),
    _encoded('["name","a","not-an-id"]'),
    _encoded('["name", "a", "01890000-0000-7000-8000-000000000000"]'),  # not as we write it
    _encoded('["-name","a","01890000-0000-7000-8000-000000000000"]'),
    _encoded('["kind","vm","01890000-0000-7000-8000-000000000000"]'),
    _encoded('["name","a\\u0000","01890000-0000-7000-8000-000000000000"]'),
    "A" * 100_000,
]


@pytest.mark.parametrize("cursor", FORGED, ids=range(len(FORGED)))
@pytest.mark.usefixtures("inventory")
def test_forged_cursors(units: SqlUnitOfWorkFactory, cursor: str) -> None:
    with units(read_only=True) as uow, pytest.raises(InvalidRequest) as caught:
        uow.workloads.list(ListQuery(cursor=cursor))
    assert caught.value.field == "cursor"


@pytest.mark.parametrize("value", ['"never"', "1", "null", '"2026-05-04T12:00:00"'])
@pytest.mark.usefixtures("inventory")
def test_forged_times(units: SqlUnitOfWorkFactory, value: str) -> None:
    cursor = _encoded(f'["created_at",{value},"01890000-0000-7000-8000-000000000000"]')
    with units(read_only=True) as uow, pytest.raises(InvalidRequest):
        uow.workloads.list(ListQuery(sort="created_at", cursor=cursor))


@pytest.mark.usefixtures("inventory")
def test_forged_sequences(units: SqlUnitOfWorkFactory) -> None:
    for sequence in (2**80, True, 1.5):
        cursor = _encoded(f'["-sequence",{str(sequence).lower()},{str(sequence).lower()}]')
        with units(read_only=True) as uow, pytest.raises(InvalidRequest):
            uow.events.list(ListQuery(cursor=cursor))


def test_every_list_works_with_every_sort(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    repositories = (
        *("projects", "quotas", "users", "role_bindings", "tokens", "clusters", "hosts", "pools"),
        *("images", "volumes", "networks", "addresses", "nics", "workloads", "operations"),
        *("events", "tickets"),
    )
    with units(read_only=True) as uow:
        for name in repositories:
            repository = getattr(uow, name)
            listing = getattr(repository, "listing", None)
            repository.list(ListQuery(project_ids=frozenset({inventory.project.id})))
            for sort in listing.orders if listing else ("sequence",):
                first = repository.list(ListQuery(sort=f"-{sort}", limit=1))
                if first.next_cursor:
                    repository.list(ListQuery(sort=f"-{sort}", cursor=first.next_cursor))
            for filtered in listing.filters if listing else ("type",):
                repository.list(ListQuery(filters={filtered: None}))


def test_lists_show_only_what_may_be_seen(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    other = Project(id=new_id(), name="other", created_at=NOW)
    with units() as uow:
        uow.projects.add(other)
        uow.events.append(make_event(project_id=inventory.project.id, message="ours"))
        uow.events.append(make_event(project_id=other.id, message="theirs"))
        uow.events.append(make_event(message="nobody's"))
        uow.commit()
    ours = frozenset({inventory.project.id})
    with units(read_only=True) as uow:
        query = ListQuery(project_ids=ours)
        assert [p.name for p in uow.projects.list(query).items] == ["acme"]
        assert [n.name for n in uow.networks.list(query).items] == ["default"]
        assert [q.project_id for q in uow.quotas.list(query).items] == [inventory.project.id]
        assert [e.message for e in uow.events.list(query).items] == ["ours"]
        assert [e.message for e in uow.events.after(0, limit=9, project_ids=ours)] == ["ours"]


@pytest.mark.usefixtures("inventory")
def test_events_newest_first_and_resumed(units: SqlUnitOfWorkFactory) -> None:
    with units() as uow:
        for number in range(7):
            uow.events.append(make_event(type=f"t{number % 2}", message=str(number)))
        uow.commit()
    assert [e.message for e in _walk(units, "events", limit=3)] == list("6543210")
    assert [e.message for e in _walk(units, "events", limit=3, sort="sequence")] == list("0123456")
    with units(read_only=True) as uow:
        last = uow.events.last_sequence()
        assert [e.message for e in uow.events.after(last - 3, limit=2)] == ["4", "5"]
        assert [e.message for e in uow.events.after(0, limit=9, filters={"type": "t1"})] == [
            "1",
            "3",
            "5",
        ]
        with pytest.raises(InvalidRequest):
            uow.events.after(0, limit=9, filters={"colour": "red"})


@pytest.mark.parametrize("sort", ["host", "-host", "project", "-image"])
@pytest.mark.parametrize("limit", [1, 3, 50])
@pytest.mark.parametrize(("text", "few"), [("", 9), ("1", 99), ("1", 9)])
def test_pages_in_the_order_of_names(
    units: SqlUnitOfWorkFactory,
    inventory: Inventory,
    sort: str,
    limit: int,
    text: str,
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that refer to nothing come first, or last; within a name they are in order of their
    ids. The order is the same where few are asked for as where many are."""
    monkeypatch.setattr(name_order, "_FEW", few)
    other = Project(id=new_id(), name="aaa", created_at=NOW)
    hosts = [inventory.make_host(name=name) for name in ("host9", "host0", "host5")]
    images = [inventory.make_image(name=name) for name in ("alpine", "zeus")]
    with units() as uow:
        uow.projects.add(other)
        for added, repository in ((hosts, uow.hosts), (images, uow.images)):
            for each in added:
                repository.add(each)
        uow.flush()
        names: dict[str, tuple[str, str]] = {}
        for number in range(24):
            host = [None, *hosts][number % 4]
            image = [None, *images][number % 3]
            project = (inventory.project, other)[number % 2]
            workload = inventory.make_workload(
                f"w{number}",
                host_id=host and host.id,
                image_id=image and image.id,
                project_id=project.id,
            )
            uow.workloads.add(workload)
            referred = {"host": host, "image": image, "project": project}[sort.removeprefix("-")]
            if text in workload.name:
                names[workload.id] = (referred.name if referred else "", workload.id)
        uow.commit()
    found: list[str] = []
    cursor = None
    with units(read_only=True) as uow:
        while True:
            query = ListQuery(sort=sort, limit=limit, cursor=cursor, text=text)
            page = uow.workloads.list(query)
            found += [workload.id for workload in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert found == sorted(names, key=lambda id: names[id], reverse=sort.startswith("-"))
