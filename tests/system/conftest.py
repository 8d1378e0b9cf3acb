"""The product as a user gets it: ``scripts/up`` on a throw-away host, then the CLI and REST.

These tests change the whole host, so they run only in the lab (``scripts/in-lab``), which
``make test`` does. When the lab ends, nothing of them is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import machine

ROOT = Path(__file__).resolve().parents[2]
VIRTMGR = ROOT / ".venv/bin/virtmgr"
BUILD_CACHE = ROOT / ".cache/build"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "test_down_up" in item.nodeid)  # it ends with an empty host
    if os.environ.get("VIRTMGR_LAB") == "ready":
        return
    skip = pytest.mark.skip(reason="changes the whole host: run it by scripts/in-lab")
    for item in items:
        if "tests/system" in item.nodeid:
            item.add_marker(skip)


@dataclass(frozen=True)
class Product:
    """virtmgr on this host, through its command line."""

    environment: dict[str, str]

    def run(
        self, *arguments: str, input: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run ``virtmgr ARGUMENTS``; its output as text."""
        done = subprocess.run(
            [str(VIRTMGR), *arguments],
            env=self.environment,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(f"virtmgr {' '.join(arguments)} → {done.returncode}\n{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        """What ``virtmgr ARGUMENTS -o json`` prints."""
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def workload(self, name: str) -> Any:
        return self.json("show", name)

    def wait_until(self, what: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for something that takes the host a while."""
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                pytest.fail(f"still not so after {seconds:.0f} s")
            time.sleep(0.1)

    def script(self, name: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run one of ``scripts/``, as ``make`` does."""
        return subprocess.run(
            [str(ROOT / "scripts" / name)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


@pytest.fixture(scope="session")
def bare_host() -> dict[str, set[str]]:
    """What the host had on it before virtmgr came."""
    return machine.traces()


@pytest.fixture(scope="session")
def product(bare_host: dict[str, set[str]]) -> Iterator[Product]:
    """virtmgr after ``make up``: app1, sys1 and vm1 run."""
    del bare_host  # only to be looked at first
    environment = {
        **os.environ,
        "VIRTMGR_BUILD_CACHE": str(BUILD_CACHE),
        "VIRTMGR_PROJECT": "default",
        "NO_COLOR": "1",
    }
    product = Product(environment)
    done = product.script("up")
    if done.returncode != 0:
        said = f"{done.stdout}\n{done.stderr}\n{machine.logs()}"
        pytest.fail(f"scripts/up → {done.returncode}\n{said}")
    yield product
    product.script("clean-host")
