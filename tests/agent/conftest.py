"""A host with an agent, closed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.agent.fakes import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Failed steps and ended workloads are tried again after a moment."""
    monkeypatch.setattr("virtmgr.domain.remembering.failure_delay", lambda n: 0.01 * n)
    monkeypatch.setattr("virtmgr.domain.plan.restart_delay", lambda n: 0.05 * (n + 1))
    with closing(Host(tmp_path)) as made:
        yield made
    assert made.world.overlaps == []
