"""virtmgr on the lab: the control plane in its place in the network, agents on hosts.

Agents run from the repository, which hosts see at its own path, where those are of the machine's
Debian release: they have the Python that the repository's environment is for. On others they are
installed first, from wheels.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.lab.plan import CONTROL_ADDRESS

ROOT = Path(__file__).resolve().parents[2]
VIRTMGR = ROOT / ".venv/bin/virtmgr"
_SERVICE = "/etc/virtmgr-lab/services/agent"
_PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Fleet:
    """The product, by its command line."""

    lab: Lab
    environment: dict[str, str]
    joined: list[str] = field(default_factory=list)

    def run(
        self, *words: str, check: bool = True, timeout: float = _PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run ``virtmgr WORDS``."""
        done = subprocess.run(
            self.lab.attached(str(VIRTMGR), *words),
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"virtmgr {words}: {done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        """What ``virtmgr WORDS -o json`` prints."""
        return json.loads(self.run(*words, "-o", "json").stdout)

    def wait_until(self, what: Callable[[], bool]) -> None:
        """Ask again and again, for two minutes at most."""
        deadline = time.monotonic() + _PATIENCE
        while not what():
            assert time.monotonic() < deadline, f"still not so after {_PATIENCE:.0f} s"
            time.sleep(0.2)

    def join(self, host: LabHost, *options: str, virtmgr: str = str(VIRTMGR)) -> None:
        """Start an agent with ``options`` on the host, also at each power-on; wait until ready.

        :param virtmgr: where the host has it.
        """
        self.joined.append(host.name)
        token = self.run("host", "token", host.name).stdout
        ca_file = Path(self.environment["VIRTMGR_DATA_DIRECTORY"]) / "pki/ca.crt"
        host.run("sh", "-c", "umask 077; cat >/root/join-token", input=token)
        host.run("sh", "-c", "cat >/root/ca.crt", input=ca_file.read_text())
        agent = [virtmgr, "agent", "--server", f"https://{CONTROL_ADDRESS}:7444",
                 "--stream-listen", f"{host.address}:7446", "--ca-file", "/root/ca.crt",
                 "--join-token-file", "/root/join-token", *options]  # fmt: skip
        script = f"#!/bin/sh\nexec {shlex.join(agent)}\n"
        host.run("sh", "-c", f"cat >{_SERVICE}; chmod +x {_SERVICE}", input=script)
        self.wait_until(lambda: self.host_state(host.name) == "ready")

    def host_state(self, name: str) -> str:
        return str(self.json("host", "show", name)["state"])


def install(host: LabHost, wheels: Path) -> str:
    """Install virtmgr on a host as the collection does; where it is then.

    :param wheels: the archive of a wheelhouse for the host's Python.
    """
    home = "/opt/virtmgr"
    host.run("python3", "-m", "venv", "--system-site-packages", home)
    shutil.copyfile(wheels, host.path(f"{home}/wheels.tar"))
    host.run("sh", "-c", f"cd {home}; mkdir wheels; tar -xf wheels.tar -C wheels")
    host.run(f"{home}/bin/pip", "--isolated", "install", "--quiet", "--no-index", "--no-deps",
             "--ignore-installed", "--require-hashes", f"--find-links={home}/wheels",
             f"--requirement={home}/wheels/requirements.txt", timeout=_PATIENCE)  # fmt: skip
    return f"{home}/bin/virtmgr"


@contextmanager
def running_fleet(lab: Lab, **settings: str) -> Iterator[Fleet]:
    """A control plane with nothing in it; hosts that joined it are as new when it has gone.

    :param settings: further variables of its environment.
    """
    base = lab.site.directory / "control"
    environment = {
        **os.environ,
        "XDG_CONFIG_HOME": f"{base}/client",
        "VIRTMGR_DATA_DIRECTORY": f"{base}/data",
        "VIRTMGR_RUN_DIRECTORY": f"{base}/run",
        "VIRTMGR_BUILD_CACHE": str(ROOT / ".cache/build"),
        "VIRTMGR_LISTEN": f"{CONTROL_ADDRESS}:7443",
        "VIRTMGR_AGENT_LISTEN": f"{CONTROL_ADDRESS}:7444",
        "VIRTMGR_STREAM_LISTEN": f"{CONTROL_ADDRESS}:7445",
        "VIRTMGR_PROJECT": "default",
        **settings,
    }
    fleet = Fleet(lab, environment)
    base.mkdir()
    try:
        fleet.run("init")
        with _serving(fleet, base / "serve.log"):
            yield fleet
    finally:
        shutil.rmtree(base)
        for name in fleet.joined:
            lab.host(name).reinstall()


@contextmanager
def _serving(fleet: Fleet, log_file: Path) -> Iterator[None]:
    with (
        log_file.open("w") as log,
        subprocess.Popen(
            fleet.lab.attached(str(VIRTMGR), "serve"), env=fleet.environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        ) as serve,
    ):  # fmt: skip
        try:
            fleet.wait_until(lambda: fleet.run("project", "list", check=False).returncode == 0)
            yield
        finally:
            serve.terminate()
