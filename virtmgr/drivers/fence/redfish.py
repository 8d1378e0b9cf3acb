"""Redfish (DMTF DSP0266), by sushy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket
from typing import Any

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.fencing import FenceDevice
from virtmgr.drivers.fence import through
from virtmgr.ports.power import Way


def is_on(device: FenceDevice, password: str, way: Way | None) -> bool:
    """``PowerState`` of the ComputerSystem; what powers on or off counts as on."""
    with _system(device, password, way) as system:
        state = system.power_state
        if state is None:
            raise Unavailable(
                f"fence device {device.name!r} at {device.address} does not say whether the "
                "power is on",
                code="fence_unclear",
                hint="look at the device itself",
            )
        return str(getattr(state, "value", state)).lower() != "off"


def turn_off(device: FenceDevice, password: str, way: Way | None) -> None:
    """``ComputerSystem.Reset`` with ForceOff."""
    import sushy

    with _system(device, password, way) as system:
        system.reset_system(sushy.RESET_FORCE_OFF)


@contextmanager
def _system(device: FenceDevice, password: str, way: Way | None) -> Iterator[Any]:
    import requests
    import sushy
    from sushy.auth import BasicAuth
    from sushy.exceptions import SushyError

    url = f"https://{_in_url(device.address)}:{device.port}/redfish/v1/"
    try:
        root = sushy.Sushy(
            url,
            verify=device.verify,
            auth=BasicAuth(device.user, password),
            server_side_retries=0,
            connector=_connector(url, way, verify=device.verify) if way is not None else None,
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


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _connector(url: str, way: Way, *, verify: bool) -> Any:
    """sushy's, but what it connects to is reached that way. URL, names and the check of the
    certificate stay the device's own."""
    from requests.adapters import HTTPAdapter
    from sushy.connector import Connector
    from urllib3 import HTTPSConnectionPool, PoolManager
    from urllib3.connection import HTTPSConnection

    class Connection(HTTPSConnection):
        def _new_conn(self) -> socket:
            return through.connection(way)

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    class Pools(PoolManager):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.pool_classes_by_scheme = {"https": Pool}

    class Adapter(HTTPAdapter):
        def init_poolmanager(
            self, connections: int, maxsize: int, block: bool = False, **kwargs: Any
        ) -> None:
            self.poolmanager = Pools(num_pools=connections, maxsize=maxsize, block=block, **kwargs)

        def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            kwargs["proxies"] = None  # a proxy of this machine's is not on that way
            return super().send(request, *args, **kwargs)

    class Through(Connector):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(url, verify=verify)
            self._session.mount("https://", Adapter())

    return Through()
