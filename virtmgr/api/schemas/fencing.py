"""Fence devices as the API shows them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import Referrer
from virtmgr.domain.fencing import ANY, FenceAgent, FenceDevice
from virtmgr.ports.unit_of_work import UnitOfWork


class FenceDeviceView(View):
    """What cuts the power of a host from outside of it. Its password is never shown."""

    name: str
    agent: FenceAgent
    address: str
    port: int
    user: str
    level: int
    system: str | None
    verify: bool
    via: str | None = Field(
        description="The host that it is reached through, by name (by id, if it is gone), or any. "
        "null: the control plane reaches it itself."
    )
    created_at: datetime


class FenceDevicesView(View):
    """The devices of a host, as they are tried."""

    items: list[FenceDeviceView]


def presenter(uow: UnitOfWork) -> Callable[[FenceDevice], FenceDeviceView]:
    """How to present fence devices, with the names of hosts."""
    host = Referrer(uow.hosts)

    def present(device: FenceDevice) -> FenceDeviceView:
        relay = host(device.via) if device.via != ANY else None
        return FenceDeviceView(
            name=device.name,
            agent=device.agent,
            address=device.address,
            port=device.port,
            user=device.user,
            level=device.level,
            system=device.system,
            verify=device.verify,
            via=relay.name if relay is not None else device.via,
            created_at=device.created_at,
        )

    return present
