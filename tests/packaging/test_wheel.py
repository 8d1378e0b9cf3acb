"""The wheel is self-contained: installed away from the repository, it sets up and serves."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from virtmgr import __version__

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
LISTENERS = ("VIRTMGR_LISTEN", "VIRTMGR_AGENT_LISTEN", "VIRTMGR_STREAM_LISTEN")


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as building leaves files in the source tree."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    skip = shutil.ignore_patterns(
        ".*", "build", "dist", "tests", "bench", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT, source, ignore=skip)
    out = source.parent
    run(UV, "build", "--quiet", "--wheel", "--out-dir", out, source, cwd=out)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and what it depends on from the one that runs the tests.

    That is put at the end of its path; the repository is not on it.
    """
    environment = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment.parent)
    python = environment / "bin/python"
    install = (UV, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python)
    run(*install, wheel, cwd=environment.parent)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Everything that virtmgr writes goes below ``tmp_path``; it listens where nobody does."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "VIRTMGR_DATA_DIRECTORY": str(tmp_path / "data"),
        "VIRTMGR_RUN_DIRECTORY": str(tmp_path / "run"),
        **{name: f"127.0.0.1:{port}" for name, port in zip(LISTENERS, free_ports(), strict=True)},
    }


def free_ports() -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in LISTENERS]
    ports = [int(each.getsockname()[1]) for each in listeners]
    for each in listeners:
        each.close()
    return ports


def test_it_carries_all_files_that_are_not_python(wheel: Path) -> None:
    names = run(sys.executable, "-m", "zipfile", "--list", wheel, cwd=wheel.parent)
    assert "virtmgr/_resources/alembic.ini" in names
    assert "virtmgr/_resources/migrations/env.py" in names
    for version in (ROOT / "migrations/versions").glob("*.py"):
        assert f"virtmgr/_resources/migrations/versions/{version.name}" in names
    assert "tests/" not in names


def test_it_sets_up_and_serves(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    virtmgr = installed / "bin/virtmgr"
    assert run(virtmgr, "--version", cwd=tmp_path, env=environment).split()[-1] == __version__
    where = "from virtmgr.config.resources import resource_path as p; print(p('migrations'))"
    migrations = run(installed / "bin/python", "-c", where, cwd=tmp_path, env=environment)
    assert Path(migrations.strip()).is_relative_to(installed)

    run(virtmgr, "db", "upgrade", cwd=tmp_path, env=environment)
    assert run(virtmgr, "db", "current", cwd=tmp_path, env=environment).strip() != "none"
    token = run(virtmgr, "init", cwd=tmp_path, env=environment).strip()
    with serving(virtmgr, environment, tmp_path):
        context = ssl.create_default_context(cafile=str(tmp_path / "data/pki/ca.crt"))
        base = f"https://{environment['VIRTMGR_LISTEN']}/api/v1"
        health = answer(f"{base}/health", context)
        projects = answer(f"{base}/projects", context, token)
    assert health["status"] == "ok"
    assert [each["name"] for each in projects["items"]] == ["default"]


@contextmanager
def serving(virtmgr: Path, environment: dict[str, str], cwd: Path) -> Iterator[None]:
    """``virtmgr serve`` runs inside the block; it ends by SIGTERM."""
    with (cwd / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [str(virtmgr), "serve"], cwd=cwd, env=environment, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0, (cwd / "serve.log").read_text()


def answer(url: str, context: ssl.SSLContext, token: str = "") -> dict[str, Any]:
    """The JSON at ``url``, once the server answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    deadline = time.monotonic() + 60
    while True:
        try:
            request = urllib.request.Request(url, headers=headers)
            with urllib.request.urlopen(request, context=context, timeout=10) as response:
                found: dict[str, Any] = json.load(response)
                return found
        except urllib.error.HTTPError:
            raise
        except OSError:  # not there yet
            assert time.monotonic() < deadline, "nothing answers"
            time.sleep(0.2)
