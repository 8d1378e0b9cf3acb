"""What serves loads nothing that only a terminal needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

_TELL = (
    "from virtmgr import bootstrap; {} import structlog, sys; print(bool(sys.modules.get('rich')))"
)


@pytest.mark.parametrize(
    ("before", "loads_rich"), [("bootstrap._do_without_rich();", False), ("", True)]
)
def test_only_commands_load_rich(before: str, loads_rich: bool) -> None:
    command = [sys.executable, "-c", _TELL.format(before)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == str(loads_rich)
