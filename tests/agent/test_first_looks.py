"""What an agent looks at from time to time it looks at first when it starts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from virtmgr.agent import agent as agents


@pytest.mark.parametrize("uptime", [0.0, 3.0, 1e6])
def test_the_certificate_is_looked_at_at_once(
    uptime: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "time", SimpleNamespace(monotonic=lambda: uptime))
    looks: list[Any] = []
    parts: Any = SimpleNamespace(
        connect=lambda: "control plane", renew=lambda connection: bool(looks.append(connection))
    )
    agent = agents.Agent(parts)
    agent._renew_certificate()
    assert looks == ["control plane"]
    agent._renew_certificate()  # not again so soon
    assert len(looks) == 1
