"""Routes of hosts and their pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flask import Response
from pydantic import Field

from virtmgr.api.answers import Answer, Listing, Started, listing
from virtmgr.api.conventions import ChangeQuery, ListParameters, Moment, UsageQuery
from virtmgr.api.dispatch import RawRequest, answer_view
from virtmgr.api.filters import by_id
from virtmgr.api.merge_patch import Patch
from virtmgr.api.routing import Route, change, create, delete, raw, read, start
from virtmgr.api.schemas.common import ReferenceView
from virtmgr.api.schemas.hosts import (
    HostView,
    NewHostView,
    PoolView,
    ScannedView,
    ShownHostView,
    host_presenter,
    pool_presenter,
    present_keys,
)
from virtmgr.api.schemas.usage_history import HostUsageView, present_history
from virtmgr.domain.access import Action
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.values import Value
from virtmgr.services import host_installation, host_removal, hosts, pools, usage_history
from virtmgr.services.context import Context
from virtmgr.services.host_installation import Address, HostAdd, HostAgain, HostEnroll
from virtmgr.services.hosts import HostCreate, HostFields


class HostParameters(ListParameters):
    """Filters of the list of hosts."""

    state: list[HostState] | None = Field(
        None, max_length=16, description="ready, cordoned, unreachable, …; repeat it for several."
    )
    cluster: str | None = Field(None, max_length=128, description="Cluster, by name or id.")
    architecture: str | None = Field(None, max_length=32, description="Such as x86_64.")
    certificate_before: Moment | None = Field(
        None, description="Those whose certificate ends until then."
    )
    drain_incomplete: bool | None = Field(
        None, description="Whether something was left behind by the last drain, which failed."
    )
    fullness: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Those with a file system of their own that is at least so full, such as 0.85.",
    )


class PoolParameters(ListParameters):
    """Filters of the list of pools."""

    host: str | None = Field(None, max_length=128, description="Host, by name or id.")
    fullness: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="Those at least so full, such as 0.85."
    )


class ScanBody(Value):
    """An ssh server to look at."""

    address: Address
    port: int = Field(22, ge=1, le=65535)


class RemoveQuery(ChangeQuery):
    """How a host is removed."""

    force: bool = Field(
        False,
        description="Forget what is on it, too: workloads and volumes; and do not let it clear up.",
    )
    take_back: bool = Field(
        False,
        description="With force: workloads that it was taking up go on on the hosts that they came "
        "from, with their disks as they were. What it has written to them is lost.",
    )


class JoinAgainBody(Value):
    """How a host joins again."""

    another_machine: bool = Field(
        False, description="Another machine than it was may take its place."
    )


def _answer(context: Context, host: Host) -> Answer[HostView]:
    return Answer(host_presenter(context.uow)(host), host.version, f"/hosts/{host.id}")


def list_(context: Context, query: HostParameters) -> Answer[Listing[HostView]]:
    """List hosts with what they have, what is claimed and what is free"""
    page = hosts.list_(context, query.query(**by_id(context.uow, query)))
    return listing(page, host_presenter(context.uow, page.items))


def add(context: Context, body: HostAdd) -> Started | Answer[NewHostView]:
    """Make a machine a host by ssh; without ssh (deprecated): as POST /host-tokens"""
    if body.ssh is None and "address" not in body.model_fields_set:
        return replace(make_token(context, body.to_create()), status=201)
    return enroll(context, body.to_enroll())


def make_token(context: Context, body: HostCreate) -> Answer[NewHostView]:
    """Let a host join: answers its one-time join token, good for an hour"""
    host, secret, expires_at = hosts.create(context, body)
    shown = host_presenter(context.uow)(host)
    view = NewHostView(**dict(shown), join_token=secret, join_token_expires_at=expires_at)
    return Answer(view, host.version, f"/hosts/{host.id}")


def enrol_again(context: Context, host: str, body: JoinAgainBody) -> Answer[NewHostView]:
    """Let an enrolled host that lost its key join again: answers a join token, good for an hour"""
    found, secret, expires_at = hosts.enrol_again(
        context, host, another_machine=body.another_machine
    )
    shown = host_presenter(context.uow)(found)
    view = NewHostView(**dict(shown), join_token=secret, join_token_expires_at=expires_at)
    return Answer(view, found.version)


def scan_key(call: RawRequest, body: ScanBody) -> Response:
    """Ask an ssh server for its keys, to be compared and then given as host_key"""
    keys = call.services.scan_keys(body.address, body.port)
    return answer_view(present_keys(body.address, body.port, keys))


def enroll(context: Context, body: HostEnroll) -> Started:
    """Make a machine a host by ssh: as POST /hosts, by its name of before"""
    operation = host_installation.enroll(context, body)

    def would() -> Mapping[str, Any]:
        host = hosts.find(context, operation.target_id)
        return {"host": host_presenter(context.uow)(host).model_dump(mode="json")}

    return Started([operation], would=would)


def retry(context: Context, host: str, body: HostAgain) -> Started:
    """Go on where an installation failed"""
    return Started([host_installation.again(context, host, host_installation.ENROLL, body)])


def reinstall(context: Context, host: str, body: HostAgain) -> Started:
    """Let a host that lost its key or was installed anew join again, by ssh"""
    return Started([host_installation.again(context, host, host_installation.REINSTALL, body)])


def renew(context: Context, host: str, body: HostAgain) -> Started:
    """Get a host a fresh certificate now, by ssh"""
    return Started([host_installation.again(context, host, host_installation.RENEW, body)])


def upgrade(context: Context, host: str, body: HostAgain) -> Started:
    """Bring a host to the control plane's release, by ssh; what runs there runs on"""
    return Started([host_installation.again(context, host, host_installation.UPGRADE, body)])


def show(context: Context, host: str) -> Answer[ShownHostView]:
    """Show a host, with the images that it has at hand"""
    found = hosts.find(context, host)
    images = [
        ReferenceView(id=image.id, name=image.name)
        for image in context.uow.images.on_host(found.id)
    ]
    shown = ShownHostView(**dict(host_presenter(context.uow)(found)), images=images)
    return Answer(shown, found.version, f"/hosts/{found.id}")


def patch(context: Context, host: str, patch: Patch[HostFields]) -> Answer[HostView]:
    """Change a host's name or labels (JSON merge patch)"""
    found = hosts.lock(context, host)
    current = HostFields.model_validate(found, from_attributes=True)
    return _answer(context, hosts.update(context, found, patch.apply(current)))


def remove(context: Context, host: str, query: RemoveQuery) -> Answer[HostView]:
    """Remove a host that has no workloads and no volumes: it clears up, and is gone then"""
    removed = host_removal.remove(context, host, force=query.force, take_back=query.take_back)
    return _answer(context, removed)


def cordon(context: Context, host: str) -> Answer[HostView]:
    """Let a host take nothing new"""
    return _answer(context, hosts.cordon(context, host))


def uncordon(context: Context, host: str) -> Answer[HostView]:
    """Let a host take new workloads again"""
    return _answer(context, hosts.uncordon(context, host))


def maintain(context: Context, host: str) -> Answer[HostView]:
    """Put a host on which nothing runs into maintenance"""
    return _answer(context, hosts.maintain(context, host))


def show_usage(context: Context, query: UsageQuery, host: str) -> Answer[HostUsageView]:
    """What a host as a whole has used: CPU, memory, disk, network; without since of an hour"""
    since = query.since or context.now - timedelta(hours=1)
    history = usage_history.of_host(context, hosts.find(context, host), since)
    return Answer(HostUsageView(history=present_history(history)))


def list_pools(context: Context, query: PoolParameters) -> Answer[Listing[PoolView]]:
    """List pools"""
    page = pools.list_(context, query.query(**by_id(context.uow, query)))
    return listing(page, pool_presenter(context.uow, page.items))


_ONE = "/hosts/{host}"

ROUTES: tuple[Route, ...] = (
    read("/hosts", list_, Action.HOSTS_VIEW),
    start("POST", "/hosts", add, Action.HOSTS_CREATE, answers={201: NewHostView}),
    create("/host-tokens", make_token, Action.HOSTS_CREATE),
    raw(
        "POST",
        "/hosts/scan-key",
        scan_key,
        Action.HOSTS_CREATE,
        answers={200: ScannedView},
    ),
    start("POST", "/hosts/enroll", enroll, Action.HOSTS_CREATE, deprecated=True),
    start("POST", _ONE + "/retry", retry, Action.HOSTS_CREATE),
    start("POST", _ONE + "/reinstall", reinstall, Action.HOSTS_CREATE),
    start("POST", _ONE + "/renew-certificates", renew, Action.HOSTS_CREATE),
    start("POST", _ONE + "/upgrade", upgrade, Action.HOSTS_CREATE),
    read(_ONE, show, Action.HOSTS_VIEW),
    change("PATCH", _ONE, patch, Action.HOSTS_UPDATE),
    delete(_ONE, remove, Action.HOSTS_DELETE),
    change("POST", _ONE + "/join-token", enrol_again, Action.HOSTS_CREATE),
    change("POST", _ONE + "/cordon", cordon, Action.HOSTS_UPDATE),
    change("POST", _ONE + "/uncordon", uncordon, Action.HOSTS_UPDATE),
    change("POST", _ONE + "/maintenance", maintain, Action.HOSTS_UPDATE),
    read(_ONE + "/usage", show_usage, Action.HOSTS_VIEW),
    read("/pools", list_pools, Action.POOLS_VIEW),
)
