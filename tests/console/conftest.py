"""One control plane and one browser for all tests of the console; and one for a file where it
is stopped, locked out or filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.api.conftest import api, app, clock, contract, empty_database, services
from tests.console import browser as browsers
from tests.console.browser import CHROMIUM, Viewer, chromium
from tests.console.installation import PASSWORD, Installation, installation, populate

__all__ = ["api", "app", "clock", "contract", "empty_database", "services"]

_PATIENCE = 60_000  # milliseconds: a loaded machine is slow, and says nothing about the code


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed: scripts/setup does")
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A control plane with three hosts and a little of everything. Leave it as it was found."""
    with installation(tmp_path_factory.mktemp("console")) as found:
        populate(found)
        yield found


@contextmanager
def logged_in(browser: Browser, found: Installation, **options: Any) -> Iterator[Viewer]:
    """The administrator in a fresh profile; ``options`` are those of ``browser.viewer``."""
    with browsers.viewer(browser, found.url, **options) as viewer:
        viewer.page.set_default_timeout(_PATIENCE)
        viewer.log_in("admin", PASSWORD)
        yield viewer


@pytest.fixture
def viewer(browser: Browser, installed: Installation) -> Iterator[Viewer]:
    """The administrator at a desktop, of whose browser nothing unexpected may be heard."""
    with logged_in(browser, installed) as found:
        yield found
        assert found.unexpected() == []
