"""Simulated hosts over real connections: prepared in bulk, they sync, are woken and come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bootstrap.raw import eventually
from tests.fixtures.control_plane import Client, add_images, new_control_plane, served
from virtmgr.bootstrap.processes import environment
from virtmgr.domain.errors import Conflict

_HOSTS = 12
_VIRTMGR = "from virtmgr.cli.main import main; main()"


@pytest.mark.slow
def test_a_small_fleet(tmp_path: Path) -> None:
    server = new_control_plane(tmp_path / "control-plane")
    with server.inventory() as uow:
        add_images(uow)
    fleet, report = tmp_path / "fleet", tmp_path / "report"

    def virtmgr(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _VIRTMGR, "sim", *arguments],
            env={**os.environ, **environment(server.settings)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    said, _ = virtmgr("prepare", "--fleet", str(fleet), "--hosts", str(_HOSTS)).communicate()
    assert "SIMULATED" in said

    def settled() -> int:
        lines = report.read_text().splitlines() if report.exists() else []
        return sum("settled_seconds" in json.loads(line) for line in lines)

    with served(server):
        client = Client(server)
        running = virtmgr(
            *("run", "--fleet", str(fleet), "--ramp", "1", "--pace", "0.1", "--every", "1"),
            *("--report", str(report)),
        )
        try:
            eventually(lambda: settled() == 1)
            hosts = client.call("GET", "/hosts?label=simulated:true").body["items"]
            assert [host["state"] for host in hosts] == ["ready"] * _HOSTS
            spec = {"kind": "container", "image": "busybox", "name": "web1"}
            made = client.call("POST", "/projects/default/workloads", spec)
            assert made.status == 202, made.body
            path = "/projects/default/workloads/web1"
            eventually(lambda: client.call("GET", path).body["status"]["state"] == "running")
            assert running.stdin is not None
            print("restart all", file=running.stdin, flush=True)
            eventually(lambda: settled() == 2)
        finally:
            client.close()
            running.terminate()
            output, _ = running.communicate()
        assert "SIMULATED" in output
        assert f"{_HOSTS}/{_HOSTS} simulated hosts synced" in output


def test_a_fleet_is_not_prepared_over_another_one(tmp_path: Path) -> None:
    from virtmgr.bootstrap import prepare_simulation

    server = new_control_plane(tmp_path / "control-plane")
    fleet = tmp_path / "fleet"
    prepare_simulation(server.settings, fleet, 2, "default", "sim", lambda _: None)
    with pytest.raises(Conflict, match="not empty"):
        prepare_simulation(server.settings, fleet, 2, "default", "sim", lambda _: None)
