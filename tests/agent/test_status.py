"""The agent's status file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from virtmgr.agent.status import StatusFile
from virtmgr.domain.errors import Unavailable


class _Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_it_says_how_the_last_sync_went_and_since_when(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text("of an earlier agent")
    status = StatusFile(path, _Clock())
    assert not path.exists()
    status.tell(None)
    first = _read(path)
    assert first == {
        "state": "synced",
        "since": "2026-01-01T00:00:01+00:00",
        "error": "",
        "hint": "",
    }
    status.tell(None)
    assert _read(path) == first
    status.tell(Unavailable("no answer", hint="wait"))
    failed = _read(path)
    assert (failed["state"], failed["error"], failed["hint"]) == ("failed", "no answer", "wait")
    assert failed["since"] > first["since"]
    assert [each.name for each in tmp_path.iterdir()] == ["status.json"]
