"""Fence devices of hosts, and cutting the power of one. The worker does it (``fence_worker``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pydantic import Field, SecretStr, model_validator

from virtmgr.domain.errors import InvalidRequest, NotFound
from virtmgr.domain.fencing import ANY, FenceAgent, FenceDevice
from virtmgr.domain.host import Host
from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.values import Name, Reference, Value
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import hosts
from virtmgr.services.context import Context
from virtmgr.services.records import add_event, host_target

FENCE: Final = "fence"
TEST: Final = "fence_test"
VERBS: Final = (FENCE, TEST)
_AGAIN: Final = timedelta(seconds=30)  # between tries to cut a lost host's power
_PORTS = {FenceAgent.IPMI: 623, FenceAgent.REDFISH: 443}


class FenceFields(Value):
    """A fence device as it is set."""

    agent: FenceAgent = Field(description="ipmi or redfish.")
    address: str = Field(min_length=1, max_length=253, description="Name or IP address.")
    port: int | None = Field(None, ge=1, le=65535, description="Default: 623 or 443.")
    user: str = Field(min_length=1, max_length=64)
    password: SecretStr | None = Field(
        None, max_length=256, description="Kept sealed, and never shown. Default: as before."
    )
    level: int = Field(
        1,
        ge=1,
        le=9,
        description="The lowest is tried first. Devices of one level belong together: the power "
        "is off when all of them say so.",
    )
    system: str | None = Field(
        None, max_length=256, pattern="^/", description="Redfish: path of the system."
    )
    verify: bool = Field(True, description="Redfish: check the certificate.")
    via: Reference | None = Field(
        None,
        description="The host that it is reached through, by name or id, or any: whichever other "
        "host of the cluster is ready. Default: the control plane reaches it itself.",
    )

    @model_validator(mode="after")
    def _fits(self) -> FenceFields:
        if self.agent is FenceAgent.IPMI and self.system is not None:
            raise ValueError("system: is for Redfish")
        return self


def purpose(device_id: str) -> str:
    """What a password is sealed for."""
    return f"fence device {device_id}"


def list_(context: Context, reference: str) -> Sequence[FenceDevice]:
    """The devices of a host, as they are tried.

    :raises NotFound: there is no such host.
    """
    return context.uow.fence_devices.of_host(hosts.find(context, reference).id)


def put(context: Context, reference: str, name: Name, fields: FenceFields) -> FenceDevice:
    """Set a device of a host; twice is once.

    :raises NotFound: there is no such host, or none that it is to be reached through.
    :raises InvalidRequest: it is new, and has no password; or is to be reached through its host.
    """
    host = hosts.lock(context, reference)
    via = _relay(context, host, fields.via)
    present = _named(context, host, name)
    if present is not None:
        context.uow.fence_devices.remove(present)
    id = present.id if present is not None else new_id()
    if fields.password is not None:
        secret = fields.password.get_secret_value().encode()
        sealed = context.services.vault.seal(secret, purpose(id))
    elif present is not None:
        sealed = present.sealed
    else:
        raise InvalidRequest(
            f"fence device {name!r} of host {host.name!r} has no password",
            field="password",
            hint="give it with its first setting",
        )
    device = FenceDevice(
        id=id,
        host_id=host.id,
        name=name,
        agent=fields.agent,
        address=fields.address,
        port=fields.port or _PORTS[fields.agent],
        user=fields.user,
        sealed=sealed,
        level=fields.level,
        system=fields.system,
        verify=fields.verify,
        via=via,
        created_at=context.now,
    )
    context.uow.fence_devices.add(device)
    through = f" through {fields.via}" if fields.via is not None else ""
    message = f"fence device {name} ({fields.agent} at {fields.address}{through}) was set"
    context.record("host.fence_device_set", host, message, host_id=host.id)
    return device


def _relay(context: Context, host: Host, via: str | None) -> str | None:
    """What is kept of ``via``: a host keeps its id when it is renamed."""
    if via is None or via == ANY:
        return via
    relay = hosts.find(context, via, "via")
    if relay.id == host.id:
        raise InvalidRequest(
            f"a fence device of host {host.name!r} cannot be reached through that host: when it is "
            "needed, the host is lost",
            field="via",
            hint=f"name another host, or {ANY}",
        )
    return relay.id


def remove(context: Context, reference: str, name: str) -> FenceDevice:
    """Forget a device.

    :raises NotFound: there is no such host or device.
    """
    host = hosts.lock(context, reference)
    device = _named(context, host, name)
    if device is None:
        raise NotFound(f"host {host.name!r} has no fence device {name!r}")
    context.uow.fence_devices.remove(device)
    message = f"fence device {name} was removed"
    context.record("host.fence_device_removed", host, message, host_id=host.id)
    return device


def begin(context: Context, reference: str, verb: str) -> Operation:
    """Cut the power of a host, or ask its devices whether it is on. A worker does it.

    :raises NotFound: there is no such host.
    :raises InvalidRequest: it has no fence device.
    """
    host = hosts.lock(context, reference)
    if not context.uow.fence_devices.of_host(host.id):
        raise InvalidRequest(
            f"host {host.name!r} has no fence device",
            code="no_fence_device",
            hint=f"set one with 'virtmgr host fence set {host.name}'",
        )
    operation = context.begin(verb, "host", host)
    message = f"the power of host {host.name} is to be cut" if verb == FENCE else "a test was asked"
    context.record(
        f"host.{verb}_requested", host, message, operation_id=operation.id, host_id=host.id
    )
    return operation


def begin_for_lost(uow: UnitOfWork, host: Host, now: datetime) -> bool:
    """Let a lost host's power be cut, unless that is under way or failed just now."""
    if not uow.fence_devices.of_host(host.id):
        return False
    last = uow.operations.last(FENCE, host.id)
    if last is not None and last.finished_at is None:
        return False
    if last is not None and last.state is OperationState.FAILED and now - last.updated_at < _AGAIN:
        return False
    operation = Operation(
        id=new_id(),
        verb=FENCE,
        target_type="host",
        target_id=host.id,
        target_name=host.name,
        project_id=None,
        user_id=None,
        parameters={"lost": True},
        created_at=now,
        updated_at=now,
    )
    uow.operations.add(operation)
    add_event(
        uow,
        "host.fence_requested",
        host_target(host),
        now=now,
        operation_id=operation.id,
        message=f"host {host.name} is lost, and has highly available workloads",
    )
    return True


def _named(context: Context, host: Host, name: str) -> FenceDevice | None:
    devices = context.uow.fence_devices.of_host(host.id)
    return next((device for device in devices if device.name == name), None)
