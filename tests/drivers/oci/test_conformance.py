"""The container driver keeps the driver port's contract."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.drivers.conformance import DriverConformance
from tests.drivers.oci.kit import ID_BASE, OciKit, nic, workload
from virtmgr.domain.ids import new_id
from virtmgr.domain.sync import DesiredNic, DesiredVolume, DesiredWorkload
from virtmgr.drivers.oci.driver import OciDriver
from virtmgr.drivers.oci.idmap import ID_COUNT
from virtmgr.ports.driver import Provision

pytestmark = pytest.mark.host


class OciConformanceKit:
    def __init__(self, kit: OciKit) -> None:
        self._kit = kit
        self._bases: dict[str, int] = {}

    @property
    def driver(self) -> OciDriver:
        return self._kit.driver

    def desired(self) -> DesiredWorkload:
        return workload("/bin/sh", "-c", "echo ready; exec sleep 1000")

    def provision_for(self, workload: DesiredWorkload) -> Provision:
        base = self._bases.setdefault(workload.id, ID_BASE + ID_COUNT * len(self._bases))
        return replace(self._kit.provision(), id_base=base)

    def restart_agent(self) -> None:
        self._kit.restart_agent()

    def stop_agent(self) -> None:
        self._kit.driver.close()

    def start_agent(self) -> None:
        self._kit.driver = self._kit.new_driver()

    def kill_guest(self, workload_id: str) -> None:
        os.kill(
            int(self._kit.driver.places.of(workload_id).container_pid.read_text()), signal.SIGKILL
        )

    def saw_change(self, workload_id: str) -> bool:
        return self._kit.changes.wait_for(workload_id)

    def wait_ready(self, workload_id: str) -> None:
        """At once."""

    undecided = frozenset[str]()
    keeps_files = True

    def volume(self) -> tuple[DesiredVolume, Path]:
        path = self._kit.volume_file()
        size = path.stat().st_size
        return DesiredVolume(id=new_id(), name="data", size=size, path="/data"), path

    def nic(self) -> DesiredNic:
        return nic()

    def echo(self, text: str) -> tuple[str, ...]:
        return ("echo", text)

    def fail(self, code: int) -> tuple[str, ...]:
        return ("/bin/sh", "-c", f"exit {code}")


class TestConformance(DriverConformance):
    @pytest.fixture
    def driver_kit(self, each_runtime: OciKit) -> OciConformanceKit:
        return OciConformanceKit(each_runtime)
