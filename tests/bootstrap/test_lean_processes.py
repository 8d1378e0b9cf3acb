"""What serves loads nothing that only a terminal needs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from virtmgr.config.settings import PARENT_PROCESS

_TELL = "import {}, structlog, sys; print(sys.modules.get('rich') is not None)"


@pytest.mark.parametrize("module", ["web_worker", "hub", "worker"])
@pytest.mark.parametrize("is_child", [True, False])
def test_only_commands_load_rich(module: str, is_child: bool) -> None:
    environment = {**os.environ, **({PARENT_PROCESS: str(os.getpid())} if is_child else {})}
    command = [sys.executable, "-c", _TELL.format(f"virtmgr.bootstrap.{module}")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == str(not is_child)
