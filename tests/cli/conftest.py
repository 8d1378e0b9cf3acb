"""A server, and the command line run against it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.cli.fake_server import TOKEN, FakeServer, State
from virtmgr.cli.main import root

Run = Callable[..., Result]


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def server(state: State) -> Iterator[FakeServer]:
    with FakeServer(state) as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment without the developer's own contexts."""
    for name in [name for name in os.environ if name.startswith("VIRTMGR_")]:
        monkeypatch.delenv(name)
    return {"VIRTMGR_CONFIG": str(tmp_path / "config.yaml")}


@pytest.fixture
def bare(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs virtmgr without knowing any server."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(root, arguments, input=input)

    return run


@pytest.fixture
def virtmgr(bare: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs virtmgr against the server, logged in."""
    monkeypatch.setenv("VIRTMGR_SERVER", server.url)
    monkeypatch.setenv("VIRTMGR_TOKEN", TOKEN)
    return bare
