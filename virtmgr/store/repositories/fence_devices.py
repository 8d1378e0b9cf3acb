"""Fence devices of hosts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from virtmgr.domain.fencing import FenceDevice
from virtmgr.store import tables

_devices = tables.fence_devices.c


class SqlFenceDevices:
    """A few rows a host, which come and go with it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def of_host(self, host_id: str) -> Sequence[FenceDevice]:
        found = select(FenceDevice).where(_devices.host_id == host_id)
        return self._session.scalars(found.order_by(_devices.level, _devices.name)).all()

    def add(self, device: FenceDevice) -> None:
        self._session.add(device)
        self._session.flush()

    def remove(self, device: FenceDevice) -> None:
        self._session.delete(device)
        self._session.flush()
