"""Fence devices as the API shows them."""

from __future__ import annotations

from datetime import datetime

from virtmgr.api.answers import View
from virtmgr.domain.fencing import FenceAgent


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
    created_at: datetime


class FenceDevicesView(View):
    """The devices of a host, as they are tried."""

    items: list[FenceDeviceView]
