"""The container driver keeps the driver port's contract."""

from __future__ import annotations

import os
import signal

import pytest

from tests.drivers.conformance import DriverConformance
from tests.drivers.oci.kit import OciKit, workload
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.drivers.oci.driver import OciDriver
from virtmgr.ports.driver import Provision

pytestmark = pytest.mark.host


class OciConformanceKit:
    def __init__(self, kit: OciKit) -> None:
        self._kit = kit

    @property
    def driver(self) -> OciDriver:
        return self._kit.driver

    def desired(self) -> DesiredWorkload:
        return workload("/bin/sh", "-c", "echo ready; exec sleep 1000")

    def provision_for(self, workload: DesiredWorkload) -> Provision:
        del workload
        return self._kit.provision()

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

    def echo(self, text: str) -> tuple[str, ...]:
        return ("echo", text)

    def fail(self, code: int) -> tuple[str, ...]:
        return ("/bin/sh", "-c", f"exit {code}")


class TestConformance(DriverConformance):
    @pytest.fixture
    def driver_kit(self, each_runtime: OciKit) -> OciConformanceKit:
        return OciConformanceKit(each_runtime)
