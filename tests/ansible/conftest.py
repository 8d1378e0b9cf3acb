"""The collection as operators use it: on bare hosts of the lab, of both Debian releases.

The tests of ``test_hosts.py`` are one story, told in the order of the file: machines are enrolled,
used, upgraded and left again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.lab import remove_abandoned, session_site
from tests.lab.fleet import Lab
from tests.lab.plan import AUTOMATION, CONTROL_ADDRESS, Flavour, Release, fleet
from virtmgr.enrollment.collection import install_collection
from virtmgr.enrollment.wheelhouse import make_wheelhouse

TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path with the collection, as ``virtmgr collection`` makes it."""
    directory = tmp_path_factory.mktemp("collections")
    install_collection(directory)
    return directory


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Debian 12 and 13 install from."""
    directory = tmp_path_factory.mktemp("wheelhouse")
    make_wheelhouse(directory, ("3.11", "3.13"))
    return directory


def tool(name: str) -> str:
    """A program of this environment."""
    return str(TOOLS / name)


def settings(collections: Path, home: Path) -> dict[str, str]:
    """An environment for Ansible that knows nothing of this user's own."""
    return {
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ANSIBLE_HOME": str(home / "ansible"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
    }


@dataclass(frozen=True)
class Played:
    """How a playbook ended."""

    code: int
    text: str
    changed: dict[str, int]  # tasks that changed something, by host

    @property
    def changes(self) -> list[str]:
        """The tasks that changed something."""
        task, found = "", []
        for line in self.text.splitlines():
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                task = line
            elif line.startswith("changed:"):
                found.append(task)
        return found


@dataclass
class Site:
    """A control plane in the lab's network, two bare hosts, and the operator's Ansible."""

    lab: Lab
    directory: Path
    environment: dict[str, str]
    variables: dict[str, Any] = field(default_factory=dict)
    enrolment: Played | None = None
    host_variables: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def token_file(self) -> Path:
        return self.directory / "token"

    def command(self, *argv: str) -> list[str]:
        """A command in the control plane's place."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return self.lab.attached("env", "-i", *variables, *argv)

    def virtmgr(self, *arguments: str, check: bool = True) -> str:
        """``virtmgr ARGUMENTS`` as administrator; its output."""
        command = self.command(tool("virtmgr"), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def host(self, name: str) -> Any:
        return json.loads(self.virtmgr("host", "show", name, "-o", "json"))

    def ansible(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of Ansible's programs, to its end."""
        command = self.command(tool(program), *arguments)
        return subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)

    def play(self, playbook: str, *arguments: str, ok: bool = True, **variables: Any) -> Played:
        """Run a playbook with these variables, besides the site's."""
        inventory = self.directory / "inventory.yml"
        hosts = {host.name: self.host_variables.get(host.name, {}) for host in self.lab.hosts()}
        inventory.write_text(
            yaml.safe_dump({"virtmgr_hosts": {"hosts": hosts, "vars": self.variables}})
        )
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        done = self.ansible("ansible-playbook", "-i", str(inventory), playbook, *arguments, *extra)
        text = done.stdout + done.stderr
        played = Played(done.returncode, text, _changed(done.stdout))
        assert (played.code == 0) == ok, text[-8000:]
        return played


def _changed(text: str) -> dict[str, int]:
    recap = text.rpartition("PLAY RECAP")[2].splitlines()[1:]
    rows = [line.split(":", 1) for line in recap if "changed=" in line]
    return {name.strip(): int(rest.split("changed=")[1].split()[0]) for name, rest in rows}


@pytest.fixture(scope="session")
def site(
    collections: Path, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A control plane that serves, and two machines that nobody has prepared."""
    directory = tmp_path_factory.mktemp("site")
    remove_abandoned()
    lab = Lab(session_site("ansible"), say=print)
    try:
        lab.up(fleet(2, (Release.BOOKWORM, Release.TRIXIE), Flavour.BARE))
        environment = settings(collections, directory) | {
            "VIRTMGR_DATA_DIRECTORY": str(directory / "data"),
            "VIRTMGR_RUN_DIRECTORY": str(directory / "run"),
            "VIRTMGR_BUILD_CACHE": str(Path(__file__).resolve().parents[2] / ".cache/build"),
            "VIRTMGR_LISTEN": f"{CONTROL_ADDRESS}:7443",
            "VIRTMGR_AGENT_LISTEN": f"{CONTROL_ADDRESS}:7444",
            "VIRTMGR_STREAM_LISTEN": f"{CONTROL_ADDRESS}:7445",
            "VIRTMGR_PROJECT": "default",
            "ANSIBLE_SSH_ARGS": f"-F {lab.site.ssh_config} -o ControlMaster=auto "
            "-o ControlPersist=60s",
        }
        site = Site(lab, directory, environment)
        site.token_file.touch(mode=0o600)
        site.token_file.write_text(site.virtmgr("init"))
        site.variables |= {
            "ansible_python_interpreter": "/usr/bin/python3",
            "virtmgr_server": f"https://{CONTROL_ADDRESS}:7444",
            "virtmgr_ca_file": str(directory / "data/pki/ca.crt"),
            "virtmgr_api": f"https://{CONTROL_ADDRESS}:7443",
            "virtmgr_api_token_file": str(site.token_file),
            "virtmgr_wheelhouse": str(wheelhouse),
        }
        with (directory / "serve.log").open("wb") as log:
            serving = subprocess.Popen(
                site.command(tool("virtmgr"), "serve"), stdout=log, stderr=log
            )
        try:
            _wait_for(site)
            yield site
        finally:
            serving.terminate()
            serving.wait(30)
    finally:
        lab.down()


@pytest.fixture(scope="session")
def enrolled(site: Site) -> Site:
    """Both are hosts: h1 by the REST API, as root; h2 by its operator's token, by sudo."""
    if site.virtmgr("host", "list", "-o", "name").split():
        return site
    join_token = site.directory / "join-token"
    join_token.touch(mode=0o600)
    join_token.write_text(site.virtmgr("host", "token", "h2"))
    site.host_variables["h2"] = {
        "ansible_user": AUTOMATION,
        "virtmgr_join_token_file": str(join_token),
        "virtmgr_api": "",
    }
    site.enrolment = site.play("virtmgr.core.enroll", virtmgr_labels={"rack": "r1"})
    del site.host_variables["h2"]
    return site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "tests/ansible" in item.nodeid and "test_leaving" in item.nodeid)


def _wait_for(site: Site) -> None:
    deadline = time.monotonic() + 60
    while "default" not in site.virtmgr("project", "list", check=False):
        assert time.monotonic() < deadline, (site.directory / "serve.log").read_text()
        time.sleep(0.2)
