"""Simulated hosts over real connections: prepared in bulk, they sync, are woken and come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bootstrap.raw import eventually
from tests.fixtures.control_plane import Client, Server, add_images, new_control_plane, served
from virtmgr.bootstrap.processes import environment
from virtmgr.domain.errors import Conflict

_HOSTS = 12
_VIRTMGR = "from virtmgr.cli.main import main; main()"


class _Living:
    """A fleet that runs."""

    def __init__(self, process: subprocess.Popen[str], report: Path) -> None:
        self._process = process
        self._report = report

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def settled(self) -> int:
        """How often all hosts that are well have synced since something happened."""
        lines = self._report.read_text().splitlines() if self._report.exists() else []
        return sum("settled_seconds" in json.loads(line) for line in lines)


@contextmanager
def _living(server: Server, directory: Path) -> Iterator[_Living]:
    """A prepared fleet of ``_HOSTS`` that has come up; what it said is looked at in the end."""
    fleet, report = directory / "fleet", directory / "report"

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
    running = virtmgr(
        *("run", "--fleet", str(fleet), "--ramp", "1", "--pace", "0.1", "--every", "1"),
        *("--report", str(report)),
    )
    try:
        living = _Living(running, report)
        eventually(lambda: living.settled() == 1)
        yield living
    finally:
        running.terminate()
        output, _ = running.communicate()
    assert "SIMULATED" in output
    assert f"{_HOSTS}/{_HOSTS} simulated hosts synced" in output


@pytest.fixture
def server(tmp_path: Path) -> Server:
    made = new_control_plane(tmp_path / "control-plane")
    with made.inventory() as uow:
        add_images(uow)
    return made


@pytest.mark.slow
def test_a_small_fleet(server: Server, tmp_path: Path) -> None:
    with served(server), _living(server, tmp_path) as fleet, closing(Client(server)) as client:
        hosts = client.call("GET", "/hosts?label=simulated:true").body["items"]
        assert [host["state"] for host in hosts] == ["ready"] * _HOSTS
        spec = {"kind": "container", "image": "busybox", "name": "web1"}
        made = client.call("POST", "/projects/default/workloads", spec)
        assert made.status == 202, made.body
        path = "/projects/default/workloads/web1"
        eventually(lambda: client.call("GET", path).body["status"]["state"] == "running")
        fleet.say("restart all")
        eventually(lambda: fleet.settled() == 2)


@pytest.mark.slow
def test_hosts_are_lost_and_cut_off_and_come_back(server: Server, tmp_path: Path) -> None:
    """Their guests are unknown meanwhile. Those of a lost host have ended and are started again;
    those of one that was cut off have run on."""
    web, worker = served(server), served(server, module="virtmgr.bootstrap.worker")
    with web, worker, _living(server, tmp_path) as fleet, closing(Client(server)) as client:
        spec = {
            "kind": "container",
            "image": "busybox",
            "name": "web",
            "labels": {"app": "web"},
            "placement": {"affinity": [{"mode": "apart", "labels": {"app": "web"}}]},
        }
        made = client.call("POST", f"/projects/default/workloads?count={_HOSTS}", spec)
        assert made.status == 202, made.body

        def guests() -> dict[str, dict[str, Any]]:
            """Their status by the names of their hosts."""
            items = client.call("GET", "/workloads?limit=100").body["items"]
            return {one["host"]["name"]: one["status"] for one in items}

        def hosts(state: str) -> set[str]:
            items = client.call("GET", f"/hosts?limit=100&state={state}").body["items"]
            return {one["name"] for one in items}

        def all_run() -> bool:
            return [one["state"] for one in guests().values()] == ["running"] * _HOSTS

        eventually(all_run)
        before = guests()
        assert len(before) == _HOSTS
        fleet.say("lose 3")
        eventually(lambda: len(hosts("unreachable")) == 3)
        lost = hosts("unreachable")
        fleet.say("partition 2")
        eventually(lambda: len(hosts("unreachable")) == 5)
        cut_off = hosts("unreachable") - lost
        unknown = {name for name, one in guests().items() if one["state"] == "unknown"}
        assert unknown == lost | cut_off
        fleet.say("back")
        eventually(lambda: len(hosts("ready")) == _HOSTS)
        eventually(all_run)
        after = guests()
        anew = {name for name in after if after[name]["started_at"] != before[name]["started_at"]}
        assert anew == lost
        rebooted = client.call("GET", "/events?type=host.rebooted").body["items"]
        assert {one["target"]["name"] for one in rebooted} == lost


def test_a_fleet_is_not_prepared_over_another_one(tmp_path: Path) -> None:
    from virtmgr.bootstrap import prepare_simulation

    server = new_control_plane(tmp_path / "control-plane")
    fleet = tmp_path / "fleet"
    prepare_simulation(server.settings, fleet, 2, "default", "sim", lambda _: None)
    with pytest.raises(Conflict, match="not empty"):
        prepare_simulation(server.settings, fleet, 2, "default", "sim", lambda _: None)
