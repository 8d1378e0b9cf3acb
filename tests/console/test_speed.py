"""Pages stay quick however much there is: a fixed number of statements, and small HTML."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.api.conftest import open_services
from tests.console.installation import PASSWORD
from tests.fixtures.full_inventory import fill
from tests.fixtures.statements import statements
from virtmgr.api.app import create_app
from virtmgr.console.app import create_console
from virtmgr.console.navigation import PLACES
from virtmgr.domain.ids import new_id
from virtmgr.ports.clock import SystemClock
from virtmgr.services import auth
from virtmgr.services.passwords import hash_password

LARGEST: Final = 100 * 1024  # bytes of a page's HTML
FIRST_PAGE: Final = 400 * 1024  # bytes on the wire, with all files that it names
SIZES: Final = (5, 500)  # rows of each noun: less than a page shows, and many pages


class Console:
    """The console over a database of its own, in this process, as the administrator."""

    def __init__(self, template: Path, directory: Path, rows: int) -> None:
        directory.mkdir()
        self._opened = open_services(template, directory, SystemClock())
        services = self._services = self._opened.__enter__()
        with services.units() as uow:
            auth.initialise(uow, services.clock)
            admin = uow.users.find("admin")
            assert admin is not None
            admin.password_hash = hash_password(PASSWORD)
            fill(uow, workloads=rows, hosts=rows, others=rows)
            uow.commit()
        self._app = create_console(create_app(services))
        self._client = self._app.test_client()
        form = {"name": "admin", "password": PASSWORD}
        assert self._client.post("/login", data=form, base_url="https://x").status_code == 303
        self.rows = rows

    def close(self) -> None:
        self._opened.__exit__(None, None, None)

    def get(self, path: str, **options: Any) -> Any:
        return self._client.get(path, base_url="https://x", **options)

    def change_something(self) -> None:
        """So that no answer of before is given again."""
        with self._services.units() as uow:
            uow.settings.set("changed", new_id())
            uow.commit()

    def pages(self) -> list[str]:
        """The menu's places that are there."""
        return [place.path for place in PLACES if self.get(place.path).status_code == 200]


@pytest.fixture(scope="module")
def consoles(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Console]]:
    """One with few rows, one with many."""
    directory = tmp_path_factory.mktemp("speed")
    template = directory / "template.db"
    shutil.copy(empty_database, template)
    made = [Console(template, directory / str(rows), rows) for rows in SIZES]
    yield made
    for console in made:
        console.close()


def test_the_statements_of_a_page_do_not_grow_with_rows(consoles: list[Console]) -> None:
    grown = {}
    for path in consoles[0].pages():
        counts = {}
        for console in consoles:
            console.get(path)  # whatever is read once for a process
            console.change_something()
            with statements() as sent:
                answer = console.get(path)
            assert answer.status_code == 200, path
            assert any("FROM" in statement for statement in sent), "nothing was read"
            counts[console.rows] = len(sent)
        few, many = counts.values()
        if many > few:
            grown[path] = counts
    assert grown == {}


def test_pages_stay_small_with_many_rows(consoles: list[Console]) -> None:
    sizes = {path: len(consoles[1].get(path).data) for path in consoles[1].pages()}
    assert {path: size for path, size in sizes.items() if size > LARGEST} == {}


def test_no_page_waits_on_a_host(consoles: list[Console]) -> None:
    """There is nothing here to dial hosts with; a page that did would fail."""
    pages = ("/hosts/host-1", "/projects/project-1/workloads/workload-1", "/tasks")
    for path in (*consoles[1].pages(), *pages):
        assert consoles[1].get(path).status_code == 200, path


def test_the_first_page_is_light_and_its_files_are_kept_for_ever(consoles: list[Console]) -> None:
    html = consoles[1].get("/workloads").text
    files = set(re.findall(r'(?:src|href)="(/static/[^"#]+)', html))
    assert {Path(file).suffix for file in files} == {".css", ".js", ".svg"}
    total = len(html)
    for file in files:
        with consoles[1].get(file, headers={"Accept-Encoding": "gzip"}) as answer:
            assert "immutable" in answer.headers["Cache-Control"], file
            total += len(answer.data)
    assert total < FIRST_PAGE
