"""Bare machines become hosts, and stay hosts; in the order of this file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.conftest import Site
from tests.ansible.traces import named_after_virtmgr

pytestmark = [
    pytest.mark.host,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]


def _wait_until(what: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"still not so after {seconds:.0f} s"
        time.sleep(0.5)


def _release(site: Site, name: str) -> str:
    return site.lab.host(name).run("readlink", "/opt/virtmgr/current").stdout.strip()


def _wheelhouse(site: Site, tmp_path: Path, release: str) -> str:
    """The same wheels as another release."""
    there = Path(site.variables["virtmgr_wheelhouse"])
    manifest = json.loads((there / "manifest.json").read_text()) | {"release": release}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for archive in there.glob("*.tar"):
        (tmp_path / archive.name).symlink_to(archive)
    return str(tmp_path)


def test_preflight_says_everything_at_once(site: Site) -> None:
    wrong: dict[str, Any] = {
        "preflight_min_cpus": 1000,
        "preflight_min_memory": 10**9,
        "preflight_directories": {"/var/lib/virtmgr-agent": 10**9},
        "virtmgr_stream_address": "127.0.0.1",
        "virtmgr_stream_port": 22,
        "virtmgr_server": "https://nowhere.invalid:7444",
    }
    played = site.play("virtmgr.core.enroll", "--limit=h1", ok=False, **wrong)
    for words in (
        "1000 wanted",
        "MiB of memory",
        "MiB are free",
        "nowhere.invalid cannot be",
        "22",
    ):
        assert words in played.text, played.text
    assert played.text.count("To do:") >= 5
    assert named_after_virtmgr(site.lab.host("h1")) == set()


def test_machines_become_hosts(enrolled: Site) -> None:
    for name, libvirt in (("h1", "9."), ("h2", "11.")):
        host = enrolled.host(name)
        assert host["state"] == "ready"
        drivers = {each["name"]: each for each in host["facts"]["drivers"]}
        assert drivers["oci"]["healthy"], drivers
        assert drivers["libvirt"]["healthy"], drivers
        assert f"libvirt {libvirt}" in drivers["libvirt"]["version"]
    assert enrolled.host("h1")["labels"] == {"rack": "r1"}


def test_the_join_token_is_nowhere(enrolled: Site) -> None:
    """Not in what Ansible says, not on the host, not in its logs."""
    assert enrolled.enrolment is not None
    assert "vmj_" not in enrolled.enrolment.text
    for host in enrolled.lab.hosts():
        found = host.run("grep", "-rlI", "vmj_", "/etc", "/run", "/root", "/tmp", "/var/log",
                         "/var/lib/virtmgr-agent", check=False)  # fmt: skip
        assert found.stdout == ""


def test_a_second_run_changes_nothing(enrolled: Site) -> None:
    played = enrolled.play("virtmgr.core.enroll", virtmgr_labels={"rack": "r1"})
    assert played.changes == []
    assert played.changed == {"h1": 0, "h2": 0}


def test_only_the_control_plane_reaches_the_agent(enrolled: Site) -> None:
    h1, h2 = enrolled.lab.host("h1"), enrolled.lab.host("h2")
    knock = f"import socket; socket.create_connection(('{h2.address}', 7446), 2)"
    assert h1.run("python3", "-c", knock, check=False).returncode != 0
    assert enrolled.lab.run("python3", "-c", knock).returncode == 0
    assert h1.run("python3", "-c", knock.replace("7446", "22"), check=False).returncode == 0


def test_agents_come_back_with_the_power(enrolled: Site) -> None:
    host = enrolled.lab.host("h1")
    before = enrolled.host("h1")["facts"]["boot_id"]
    host.power_off()
    host.power_on()
    _wait_until(lambda: bool(enrolled.host("h1")["facts"]["boot_id"] != before))
    assert enrolled.host("h1")["state"] == "ready"


def test_an_agent_that_is_killed_comes_back(enrolled: Site) -> None:
    host = enrolled.lab.host("h2")
    status = ("cat", "/run/virtmgr-agent/status.json")
    before = host.run(*status).stdout
    host.run("pkill", "-KILL", "-f", "bin/virtmgr agent")
    _wait_until(lambda: host.run(*status, check=False).stdout not in ("", before))
    _wait_until(lambda: "synced" in host.run(*status, check=False).stdout)


def test_renewing_certificates(enrolled: Site) -> None:
    def expiry() -> dict[str, Any]:
        return {name: enrolled.host(name)["certificate_expires_at"] for name in ("h1", "h2")}

    before = expiry()
    enrolled.play("virtmgr.core.renew_certificates")
    after = expiry()
    assert all(after[name] > before[name] for name in before)


def test_a_machine_that_lost_its_key_stays_the_same_host(enrolled: Site) -> None:
    identity = enrolled.host("h1")["id"]
    enrolled.lab.host("h1").run("rm", "-r", "/var/lib/virtmgr-agent/pki")
    refused = enrolled.play("virtmgr.core.enroll", "--limit=h1", ok=False)
    assert "virtmgr.core.reinstall" in refused.text
    enrolled.play("virtmgr.core.reinstall", "--limit=h1")
    assert enrolled.host("h1")["id"] == identity
    assert enrolled.host("h1")["state"] == "ready"


def test_an_upgrade_that_fails_is_taken_back(enrolled: Site, tmp_path: Path) -> None:
    before = _release(enrolled, "h1")
    played = enrolled.play(
        "virtmgr.core.upgrade",
        ok=False,
        virtmgr_wheelhouse=_wheelhouse(enrolled, tmp_path, "0.1.0-bad"),
        agent_environment={"VIRTMGR_AGENT_SERVER": enrolled.variables["virtmgr_api"]},
        certificates_ready_seconds=8,
    )
    assert "back at its release of before" in played.text
    assert "h2" not in played.changed or played.changed["h2"] == 0  # nobody went on
    assert _release(enrolled, "h1") == before
    assert enrolled.host("h1")["cordoned"]
    enrolled.virtmgr("host", "uncordon", "h1")
    _wait_until(lambda: bool(enrolled.host("h1")["state"] == "ready"))


def test_an_upgrade_goes_host_by_host(enrolled: Site, tmp_path: Path) -> None:
    wheelhouse = _wheelhouse(enrolled, tmp_path, "0.1.0-next")
    played = enrolled.play("virtmgr.core.upgrade", virtmgr_wheelhouse=wheelhouse)
    assert played.text.count("PLAY [Upgrade hosts]") == 2
    for name in ("h1", "h2"):
        assert _release(enrolled, name) == "0.1.0-next"
        host = enrolled.host(name)
        assert (host["state"], host["cordoned"]) == ("ready", False)


def _place(site: Site, workload: str) -> tuple[str, str]:
    found = json.loads(site.virtmgr("show", workload, "-o", "json"))
    return found["host"]["name"], found["status"]["state"]


def test_workloads_leave_before_an_upgrade_where_that_is_asked_for(
    enrolled: Site, tmp_path: Path
) -> None:
    enrolled.virtmgr("image", "build", "busybox", "--name", "tool", "--kind", "container")
    enrolled.virtmgr("host", "cordon", "h2")
    enrolled.virtmgr("run", "tool", "--name", "guest", "sleep", "100000")
    assert _place(enrolled, "guest") == ("h1", "running")
    wanted: dict[str, Any] = {
        "virtmgr_wheelhouse": _wheelhouse(enrolled, tmp_path, "0.1.0-emptied"),
        "virtmgr_evacuate": True,
    }
    refused = enrolled.play("virtmgr.core.upgrade", "--limit=h1", ok=False, **wanted)
    assert "default/guest" in refused.text  # there is no other host for it
    assert _place(enrolled, "guest") == ("h1", "running")
    host = enrolled.host("h1")
    assert (host["state"], host["cordoned"]) == ("ready", False)

    enrolled.virtmgr("host", "uncordon", "h2")
    played = enrolled.play("virtmgr.core.upgrade", "--limit=h1", **wanted)
    assert "Wait until it is empty" in played.text
    assert _place(enrolled, "guest") == ("h2", "running")
    host = enrolled.host("h1")
    assert (host["state"], host["cordoned"]) == ("ready", False)
    assert _release(enrolled, "h1") == "0.1.0-emptied"
    enrolled.virtmgr("delete", "guest", "--yes")
    enrolled.virtmgr("image", "delete", "tool", "--yes")
