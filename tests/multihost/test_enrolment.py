"""Machines become hosts by one command, over real ssh; what goes wrong is told, and mended."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.lab.plan import ADMINISTRATOR
from tests.multihost.fleet import Fleet, running_fleet
from virtmgr.domain.ssh import fingerprint_of
from virtmgr.enrollment.wheelhouse import make_wheelhouse

pytestmark = [
    pytest.mark.host,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]

_INSTALLATION = 900.0  # seconds


@pytest.fixture(scope="module")
def fleet(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A control plane without hosts; machines that became some are as new afterwards."""
    wheelhouse = tmp_path_factory.mktemp("wheelhouse")
    make_wheelhouse(wheelhouse, ("3.11", "3.13"))
    with running_fleet(lab, VIRTMGR_WHEELHOUSE=str(wheelhouse)) as fleet:
        fleet.joined.extend(host.name for host in lab.hosts())
        yield fleet


def _key(host: LabHost) -> str:
    return fingerprint_of(host.public_key)


def _operation(fleet: Fleet, host: LabHost) -> Any:
    """The latest on the host."""
    found = fleet.json("operations", "list")
    return next(each for each in found if each["target"]["name"] == host.name)


def _error_of(fleet: Fleet, host: LabHost, *words: str) -> str:
    """The code with which ``virtmgr host WORDS`` fails."""
    done = fleet.run("host", *words, check=False, timeout=_INSTALLATION)
    assert done.returncode != 0
    assert "hint:" in done.stderr
    assert fleet.host_state(host.name) == "install_failed"
    return str(_operation(fleet, host)["error"]["code"])


def _wait_for_role(fleet: Fleet, host: LabHost, role: str) -> None:
    """Until the host's installation is at a role."""
    deadline = time.monotonic() + _INSTALLATION
    while not _operation(fleet, host)["message"].startswith(f"{role}:"):
        operation = _operation(fleet, host)
        assert operation["state"] in ("pending", "running"), operation
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _wait_until_ended(fleet: Fleet, host: LabHost) -> Any:
    fleet.run(
        "operations", "wait", _operation(fleet, host)["id"], "--timeout", str(_INSTALLATION),
        check=False, timeout=_INSTALLATION,
    )  # fmt: skip
    return _operation(fleet, host)


def _processes(fleet: Fleet, words: str) -> list[int]:
    """Of this control plane, by a part of their command lines."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode()
            environment = (file.parent / "environ").read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            continue
        run = fleet.environment["VIRTMGR_RUN_DIRECTORY"]
        if words in command and (f"={run}" in environment or run in command):
            found.append(int(file.parent.name))
    return found


def _assert_nothing_is_left(fleet: Fleet) -> None:
    """No credentials in files, processes and rows."""
    runs = Path(fleet.environment["VIRTMGR_RUN_DIRECTORY"]) / "install"
    fleet.wait_until(lambda: not list(runs.iterdir()))
    assert _processes(fleet, "ansible") == []
    assert _processes(fleet, "virtmgr.enrollment.player") == []
    database = Path(fleet.environment["VIRTMGR_DATA_DIRECTORY"]) / "virtmgr.db"
    rows = sqlite3.connect(database)
    try:
        assert rows.execute("SELECT * FROM host_access WHERE sealed IS NOT NULL").fetchall() == []
    finally:
        rows.close()
    password = fleet.lab.password.encode()
    for file in database.parent.glob("virtmgr.db*"):
        assert password not in file.read_bytes()


def test_machines_of_two_releases_become_hosts_by_one_command(fleet: Fleet, tmp_path: Path) -> None:
    first, second, _ = fleet.lab.hosts()
    inventory = tmp_path / "hosts.yml"
    common = {
        "ansible_ssh_private_key_file": str(fleet.lab.site.key),
        "virtmgr_labels": {"rack": "r1"},
    }
    hosts = {
        first.name: {"ansible_host": first.address, "virtmgr_host_key": _key(first)},
        second.name: {
            "ansible_host": second.address,
            "ansible_user": ADMINISTRATOR,
            "ansible_become_password": fleet.lab.password,
        },
    }
    inventory.write_text(yaml.safe_dump({"virtmgr_hosts": {"vars": common, "hosts": hosts}}))
    begun = time.monotonic()
    fleet.run(
        "host", "add", "--from-inventory", str(inventory), "--accept-new-host-key", _key(second),
        timeout=_INSTALLATION,
    )  # fmt: skip
    print(f"two hosts in {time.monotonic() - begun:.0f} s")
    for host in (first, second):
        shown = fleet.json("host", "show", host.name)
        assert (shown["state"], shown["labels"]) == ("ready", {"rack": "r1"})
        log = fleet.run("operations", "log", _operation(fleet, host)["id"]).stdout
        assert "packages: " in log
        assert log.rstrip().endswith("done")
    _assert_nothing_is_left(fleet)

    fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
    for host, other in ((first, second), (second, first)):
        fleet.run("host", "cordon", other.name)
        fleet.run("run", "busybox", "--name", f"on-{host.name}", "sleep", "1000")
        fleet.run("host", "uncordon", other.name)
    fleet.wait_until(
        lambda: (
            {each["host"]["name"]: each["status"]["state"] for each in fleet.json("list")}
            == {first.name: "running", second.name: "running"}
        )
    )
    known = ("-i", str(fleet.lab.site.key), "--accept-new-host-key", _key(first))
    for address in (first.address, first.name):  # by another name it is noticed when looked at
        again = fleet.run(
            "host", "add", address, "--name", "other", *known, check=False, timeout=_INSTALLATION
        )
        assert f"host {first.name!r} already" in again.stderr
    fleet.run("host", "remove", "other", "--yes")


def test_what_is_wrong_is_told_and_can_be_put_right(fleet: Fleet, tmp_path: Path) -> None:
    """One machine: a key that is not let in, another host key, a wrong password for sudo, a power
    cut, a worker that is killed; and at last a log-in by password.
    """
    host = fleet.lab.hosts()[2]
    strange, wrong, right = (tmp_path / name for name in ("strange", "wrong", "right"))
    fleet.lab.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(strange))
    wrong.write_text("not it\n")
    right.write_text(fleet.lab.password + "\n")
    trusted = ("--accept-new-host-key", _key(host))
    known = ("-i", str(fleet.lab.site.key))

    add = ("add", host.address, "--name", host.name, "-i", str(strange), *trusted)
    assert _error_of(fleet, host, *add) == "login_refused"
    other = ("--accept-new-host-key", "SHA256:" + 43 * "A")
    assert _error_of(fleet, host, "retry", host.name, *known, *other) == "host_key_changed"
    as_operator = ("-u", ADMINISTRATOR, "--become-password-file", str(wrong))
    again = ("retry", host.name, *known, *trusted, *as_operator)
    assert _error_of(fleet, host, *again) == "sudo_password"
    _assert_nothing_is_left(fleet)

    fleet.run("host", "retry", host.name, *known, "-u", "root", "--no-wait")
    _wait_for_role(fleet, host, "packages")
    host.power_off()
    operation = _wait_until_ended(fleet, host)
    assert operation["error"]["code"] == "unreachable"
    assert fleet.host_state(host.name) == "install_failed"
    host.power_on()

    host.run("sed", "-i", "s/PasswordAuthentication no/PasswordAuthentication yes/",
             "/etc/ssh/sshd_config.d/virtmgr-lab.conf")  # fmt: skip
    host.run("sh", "-c", "kill -HUP $(cat /run/sshd.pid)")
    fleet.run(
        "host", "retry", host.name, "-u", ADMINISTRATOR, "--password-file", str(right), "--no-wait"
    )
    _wait_for_role(fleet, host, "agent")
    (worker,) = _processes(fleet, "virtmgr.bootstrap.worker")
    os.kill(worker, signal.SIGKILL)
    fleet.wait_until(lambda: not _processes(fleet, "ansible-playbook"))
    operation = _wait_until_ended(fleet, host)
    assert operation["state"] == "succeeded", operation
    assert fleet.host_state(host.name) == "ready"
    log = fleet.run("operations", "log", operation["id"]).stdout
    assert "going on after the worker was restarted" in log
    _assert_nothing_is_left(fleet)


def test_a_host_gets_a_new_certificate_and_joins_anew(fleet: Fleet) -> None:
    host = fleet.lab.hosts()[0]
    before = fleet.json("host", "show", host.name)
    known = ("-u", "root", "-i", str(fleet.lab.site.key))
    for verb in ("renew-certificates", "reinstall"):
        fleet.run("host", verb, host.name, *known, timeout=_INSTALLATION)
        after = fleet.json("host", "show", host.name)
        assert after["state"] == "ready"
        assert after["id"] == before["id"]
        assert after["certificate_expires_at"] > before["certificate_expires_at"]
        before = after
    fleet.wait_until(lambda: fleet.json("list")[0]["status"]["state"] == "running")


def test_a_host_that_was_off_while_the_ca_was_changed_is_mended_by_ssh(fleet: Fleet) -> None:
    off, on, *_ = fleet.lab.hosts()
    before = fleet.json("ca", "show")["authorities"]
    off.power_off()
    fleet.wait_until(lambda: fleet.host_state(off.name) == "unreachable")
    fleet.run("ca", "rotate")
    fleet.wait_until(lambda: fleet.json("ca", "show")["phase"] == "replacing")
    silent = [host.name for host in fleet.lab.hosts() if not host.is_on]
    fleet.wait_until(
        lambda: [each["host"] for each in fleet.json("ca", "show")["waits_for"]] == silent
    )
    refused = fleet.run("ca", "retire", "--yes", check=False)
    assert f"{off.name}: it is silent" in refused.stderr
    fleet.wait_until(
        lambda: fleet.run("ca", "retire", "--force", "--yes", check=False).returncode == 0
    )
    after = fleet.json("ca", "show")["authorities"]
    assert len(before) == len(after) == 1
    assert before[0]["fingerprint"] != after[0]["fingerprint"]
    assert fleet.host_state(on.name) == "ready"

    off.power_on()
    known = ("-u", "root", "-i", str(fleet.lab.site.key))
    fleet.run("host", "renew-certificates", off.name, *known, timeout=_INSTALLATION)
    assert fleet.host_state(off.name) == "ready"
    log = fleet.run("operations", "log", _operation(fleet, off)["id"]).stdout
    assert "Join again\n" in log
    fleet.wait_until(
        lambda: all(each["status"]["state"] == "running" for each in fleet.json("list"))
    )
