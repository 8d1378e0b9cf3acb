"""Routes of fence devices."""

from __future__ import annotations

from virtmgr.api.answers import Answer, Started
from virtmgr.api.routing import Route, change, delete, read, start
from virtmgr.api.schemas.fencing import FenceDevicesView, FenceDeviceView, presenter
from virtmgr.domain.access import Action
from virtmgr.services import fencing
from virtmgr.services.context import Context
from virtmgr.services.fencing import FenceFields


def list_(context: Context, host: str) -> Answer[FenceDevicesView]:
    """List the fence devices of a host, as they are tried"""
    devices = fencing.list_(context, host)
    return Answer(FenceDevicesView(items=list(map(presenter(context.uow), devices))))


def put(context: Context, host: str, name: str, body: FenceFields) -> Answer[FenceDeviceView]:
    """Set a fence device of a host; its password is kept sealed"""
    return Answer(presenter(context.uow)(fencing.put(context, host, name, body)))


def remove(context: Context, host: str, name: str) -> Answer[FenceDeviceView]:
    """Forget a fence device of a host"""
    return Answer(presenter(context.uow)(fencing.remove(context, host, name)))


def test(context: Context, *, host: str) -> Started:
    """Ask every fence device of a host whether the power is on; nothing is switched"""
    return Started([fencing.begin(context, host, fencing.TEST)])


def run(context: Context, *, host: str) -> Started:
    """Cut the power of a host by its fence devices, without a shutdown"""
    return Started([fencing.begin(context, host, fencing.FENCE)])


_ALL = "/hosts/{host}/fence-devices"

ROUTES: tuple[Route, ...] = (
    read(_ALL, list_, Action.HOSTS_UPDATE),
    change("PUT", _ALL + "/{name}", put, Action.HOSTS_UPDATE),
    delete(_ALL + "/{name}", remove, Action.HOSTS_UPDATE),
    start("POST", "/hosts/{host}/fence/test", test, Action.HOSTS_UPDATE),
    start("POST", "/hosts/{host}/fence", run, Action.HOSTS_UPDATE),
)
