"""The libvirt driver keeps what every driver keeps."""

from __future__ import annotations

import pytest

from tests.drivers.conformance import DriverConformance
from tests.drivers.libvirt.kit import VmKit

pytestmark = pytest.mark.host


class TestConformance(DriverConformance):
    @pytest.fixture
    def driver_kit(self, kit: VmKit, bridge: str) -> VmKit:
        kit.bridge = bridge
        return kit
