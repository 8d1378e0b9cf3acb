"""Redfish (DMTF DSP0266), by sushy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.fencing import FenceDevice


def is_on(device: FenceDevice, password: str) -> bool:
    """``PowerState`` of the ComputerSystem; what powers on or off counts as on."""
    with _system(device, password) as system:
        state = system.power_state
        if state is None:
            raise Unavailable(
                f"fence device {device.name!r} at {device.address} does not say whether the "
                "power is on",
                code="fence_unclear",
                hint="look at the device itself",
            )
        return str(getattr(state, "value", state)).lower() != "off"


def turn_off(device: FenceDevice, password: str) -> None:
    """``ComputerSystem.Reset`` with ForceOff."""
    import sushy

    with _system(device, password) as system:
        system.reset_system(sushy.RESET_FORCE_OFF)


@contextmanager
def _system(device: FenceDevice, password: str) -> Iterator[Any]:
    import requests
    import sushy
    from sushy.auth import BasicAuth
    from sushy.exceptions import SushyError

    try:
        root = sushy.Sushy(
            f"https://{device.address}:{device.port}/redfish/v1/",
            verify=device.verify,
            auth=BasicAuth(device.user, password),
            server_side_retries=0,
        )
        if device.system is not None:
            yield root.get_system(device.system)
            return
        members = root.get_system_collection().get_members()
        if len(members) != 1:
            raise Unavailable(
                f"fence device {device.name!r} at {device.address} has {len(members)} systems",
                code="fence_unclear",
                hint="say which one by its path",
            )
        yield members[0]
    except (SushyError, requests.RequestException) as error:
        raise Unavailable(
            f"fence device {device.name!r} at {device.address}, port {device.port} (Redfish) "
            f"failed: {error}",
            code="fence_failed",
            hint="are address, user, password and the system's path right; is its certificate "
            "trusted by this machine",
        ) from error
