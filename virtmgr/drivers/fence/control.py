"""``ports.power`` by the client that a device needs."""

from __future__ import annotations

from types import ModuleType

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.fencing import FenceAgent, FenceDevice
from virtmgr.drivers.fence import ipmi, redfish
from virtmgr.ports.power import Way

_CLIENTS: dict[FenceAgent, ModuleType] = {FenceAgent.IPMI: ipmi, FenceAgent.REDFISH: redfish}


class FenceControl:
    """All kinds of devices. Safe in threads."""

    def is_on(self, device: FenceDevice, password: str, way: Way | None = None) -> bool:
        try:
            return bool(_CLIENTS[device.agent].is_on(device, password, way))
        except ImportError as error:
            raise _not_installed(device) from error

    def turn_off(self, device: FenceDevice, password: str, way: Way | None = None) -> None:
        try:
            _CLIENTS[device.agent].turn_off(device, password, way)
        except ImportError as error:
            raise _not_installed(device) from error


def _not_installed(device: FenceDevice) -> Unavailable:
    return Unavailable(
        f"fence device {device.name!r} cannot be spoken to: this control plane has no client for "
        f"{device.agent}",
        code="fence_client_missing",
        hint="install virtmgr[fencing]",
    )
