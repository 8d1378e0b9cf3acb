"""Other products that start containers, where they are installed: podman and docker.

They keep everything in a directory of their own, which goes with the throw-away host, and use the
network that they come with.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_IMAGE, _NAME = "localhost/virtmgr-bench", "virtmgr-bench"
_DIRECTORY = Path("/run/virtmgr-bench")  # both need a file system that is no overlay


@dataclass(frozen=True)
class OtherTool:
    """podman or docker: both take the same words after ``command``."""

    name: str
    command: tuple[str, ...]
    remove: tuple[str, ...] = ("rm", "--force")

    def start(self, name: str = _NAME) -> None:
        self._run("run", "--detach", "--name", name, _IMAGE, "/bin/busybox", "sleep", "100000")

    def end(self, name: str = _NAME) -> None:
        self._run(*self.remove, name)

    def prepare(self, archive: Path) -> None:
        """Take in the image and start once.

        :raises subprocess.CalledProcessError: it does not run here.
        """
        self._run("import", str(archive), _IMAGE)
        self.start()
        self.end()

    def _run(self, *arguments: str) -> None:
        subprocess.run([*self.command, *arguments], check=True, capture_output=True)


_PODMAN = OtherTool(
    "podman",
    (
        "podman",
        *("--root", str(_DIRECTORY / "podman"), "--runroot", str(_DIRECTORY / "podman-run")),
        *("--cgroup-manager", "cgroupfs", "--events-backend", "file"),
    ),
    remove=("rm", "--force", "--time", "0"),  # else it asks first, and waits ten seconds
)
_SOCKET = _DIRECTORY / "docker.sock"
_DOCKER = OtherTool("docker", ("docker", "--host", f"unix://{_SOCKET}"))


@contextmanager
def other_tools() -> Iterator[list[OtherTool]]:
    """Those that start a busybox here; Docker's daemon runs as long."""
    _DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    archive = _DIRECTORY / "busybox.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
    with _docker_daemon():
        tools = [tool for tool in (_PODMAN, _DOCKER) if shutil.which(tool.name)]
        yield [tool for tool in tools if _runs(tool, archive)]
    shutil.rmtree(_DIRECTORY, ignore_errors=True)  # what is still mounted goes with the host


def _runs(tool: OtherTool, archive: Path) -> bool:
    try:
        tool.prepare(archive)
    except subprocess.CalledProcessError as error:
        print(f"{tool.name} is installed and does not run here: {error.stderr.decode()[-300:]}")
        return False
    return True


@contextmanager
def _docker_daemon() -> Iterator[None]:
    if shutil.which("dockerd") is None:
        yield
        return
    places = {"data-root": "docker", "exec-root": "docker-run", "pidfile": "docker.pid"}
    options = [f"--{option}={_DIRECTORY / name}" for option, name in places.items()]
    with (
        (_DIRECTORY / "docker.log").open("w") as log,
        subprocess.Popen(
            ["dockerd", f"--host=unix://{_SOCKET}", *options], stdout=log, stderr=log
        ) as daemon,
    ):
        until = time.monotonic() + 30
        while not _SOCKET.exists() and daemon.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        try:
            yield
        finally:
            daemon.terminate()
