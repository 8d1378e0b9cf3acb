"""The wheel is self-contained: installed into an empty environment it serves, far from any tree."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``virtmgr`` command of an environment that has the wheel and what it asks for."""
    directory = tmp_path_factory.mktemp("wheel")
    _run([sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)])
    wheel = next(directory.glob("virtmgr-*.whl"))
    environment = directory / "environment"
    _run([str(TOOLS / "uv"), "venv", "--quiet", "--python", "/usr/bin/python3", str(environment)])
    python = str(environment / "bin/python")
    _run([str(TOOLS / "uv"), "pip", "install", "--quiet", "--python", python, str(wheel)])
    return environment / "bin/virtmgr"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    listeners = [f"127.0.0.1:{port}" for port in _free_ports(3)]
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "VIRTMGR_DATA_DIRECTORY": str(tmp_path / "data"),
        "VIRTMGR_RUN_DIRECTORY": str(tmp_path / "run"),
        "VIRTMGR_LISTEN": listeners[0],
        "VIRTMGR_AGENT_LISTEN": listeners[1],
        "VIRTMGR_STREAM_LISTEN": listeners[2],
    }


@pytest.fixture
def served(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """``virtmgr serve`` from the wheel; ended with the test."""
    _run([str(installed), "init", "--no-context"], environment, tmp_path)
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [str(installed), "serve"], env=environment, cwd=tmp_path, stdout=log, stderr=log
        )
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_version_and_database(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    assert _run([str(installed), "--version"], environment, tmp_path).startswith("virtmgr ")
    _run([str(installed), "db", "upgrade"], environment, tmp_path)
    assert _run([str(installed), "db", "current"], environment, tmp_path).strip() != "none"


def test_it_carries_the_collection(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    place = Path(_run([str(installed), "collection", str(tmp_path)], environment, tmp_path).strip())
    assert place.relative_to(tmp_path) == Path("ansible_collections/virtmgr/core")
    assert (place / "playbooks/enroll.yml").exists()


def test_hosts_get_the_same_wheel_again(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    make = (
        "import pathlib, sys; from virtmgr.enrollment.wheelhouse import own_wheel; "
        "print(own_wheel(pathlib.Path(sys.argv[1])))"
    )
    python = str(installed.with_name("python"))
    again = Path(_run([python, "-c", make, str(tmp_path / "own")], environment, tmp_path).strip())
    (built,) = installed.parents[2].glob("virtmgr-*.whl")
    with zipfile.ZipFile(built) as first, zipfile.ZipFile(again) as second:
        names = {name for name in first.namelist() if not name.endswith("/RECORD")}
        assert names == {name for name in second.namelist() if not name.endswith("/RECORD")}
        assert all(first.read(name) == second.read(name) for name in names)
    install = [str(TOOLS / "uv"), "pip", "install", "--quiet", "--no-deps", "--no-index"]
    _run([*install, "--target", str(tmp_path / "there"), str(again)])


@pytest.mark.usefixtures("served")
def test_serve(environment: dict[str, str], tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(tmp_path / "data/pki/ca.crt"))
    url = f"https://{environment['VIRTMGR_LISTEN']}/api/v1/"
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url + "health", context=context, timeout=5) as answer:
                assert answer.status == 200
                break
        except urllib.error.URLError:
            assert time.monotonic() < deadline, (tmp_path / "serve.log").read_text()
            time.sleep(0.2)
    for path in ("openapi.json", "docs"):
        with urllib.request.urlopen(url + path, context=context, timeout=10) as answer:
            assert answer.status == 200
    console = f"https://{environment['VIRTMGR_LISTEN']}"
    with urllib.request.urlopen(f"{console}/", context=context, timeout=10) as answer:
        assert answer.geturl() == f"{console}/login"
        files = re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.read().decode())
    assert len(files) > 3
    for path in (*files, "/static/x/vendor/htmx.min.js", "/static/x/vendor/novnc/core/rfb.js"):
        with urllib.request.urlopen(console + path, context=context, timeout=10) as answer:
            assert len(answer.read()) > 100


def _run(
    command: list[str], environment: dict[str, str] | None = None, directory: Path | None = None
) -> str:
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
