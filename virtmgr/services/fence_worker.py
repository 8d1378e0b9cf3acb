"""Cuts the power of hosts by their fence devices, and tests those.

The power counts as off only when a device said so after it was asked. A worker that dies leaves
its operation to the next one, which asks again: cutting what is off changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from virtmgr.domain.errors import Unavailable, VirtmgrError
from virtmgr.domain.failover import Release
from virtmgr.domain.fencing import FenceDevice, by_level
from virtmgr.domain.host import HostState
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.services.container import Services
from virtmgr.services.fencing import FENCE, VERBS, purpose
from virtmgr.services.holding import keep_working, new_holder
from virtmgr.services.records import add_event, host_target

_LEASE: Final = timedelta(seconds=180)  # longer than all levels of a host take
_IDLE: Final = 0.5
_OFF_WITHIN: Final = 20.0  # seconds after it was asked for
_ASK_AGAIN: Final = 0.5

log = structlog.get_logger(__name__)


class FenceWorker:
    """Carries out one operation at a time; start several for more at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._owner = new_holder()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        keep_working(self.run_once, stop, _IDLE, name="fence")

    def run_once(self) -> bool:
        """Take one operation and carry it out; False if there is none."""
        now = self._services.clock.now()
        with self._services.units() as uow:
            operation = uow.operations.take(VERBS, self._owner, now + _LEASE, now)
            if operation is None:
                return False
            uow.commit()
        with self._services.units(read_only=True) as uow:
            host = uow.hosts.get(operation.target_id)
            devices = list(uow.fence_devices.of_host(operation.target_id))
        came_back = host is None or host.state not in SILENT
        if operation.parameters.get("lost") and came_back:
            self._end(operation, OperationState.CANCELLED, "the host came back")
            return True
        try:
            told = self._cut(devices) if operation.verb == FENCE else self._test(devices)
        except VirtmgrError as error:
            self._end(operation, OperationState.FAILED, error.message, error)
        else:
            self._end(operation, OperationState.SUCCEEDED, told)
        return True

    def _cut(self, devices: Sequence[FenceDevice]) -> str:
        """Level after level, until all devices of one say that the power is off.

        :raises Unavailable: none did.
        """
        failures = []
        for level in by_level(devices):
            try:
                for device in level:
                    self._services.power.turn_off(device, self._password(device))
                for device in level:
                    self._await_off(device)
            except VirtmgrError as error:
                failures.append(error.message)
            else:
                return f"the power is off, says {', '.join(device.name for device in level)}"
        raise Unavailable(
            "; ".join(failures) or "there is no fence device any more",
            code="not_fenced",
            hint="look at the host itself; if it is off: 'virtmgr host confirm-off'",
        )

    def _await_off(self, device: FenceDevice) -> None:
        deadline = time.monotonic() + _OFF_WITHIN
        while self._services.power.is_on(device, self._password(device)):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"fence device {device.name!r} took the order, and says after "
                    f"{_OFF_WITHIN:.0f} s that the power is still on",
                    code="still_on",
                    hint="look at the host itself",
                )
            time.sleep(_ASK_AGAIN)

    def _test(self, devices: Sequence[FenceDevice]) -> str:
        """Ask every device; nothing is switched.

        :raises VirtmgrError: one does not answer.
        """
        found = []
        for device in devices:
            is_on = self._services.power.is_on(device, self._password(device))
            found.append(f"{device.name}: {'on' if is_on else 'off'}")
        return ", ".join(found)

    def _password(self, device: FenceDevice) -> str:
        return self._services.vault.open(device.sealed, purpose(device.id)).decode()

    def _end(
        self,
        operation: Operation,
        state: OperationState,
        message: str,
        error: VirtmgrError | None = None,
    ) -> None:
        """Note how it ended; a silent host whose power was cut is off from now on."""
        now = self._services.clock.now()
        with self._services.units() as uow:
            host = uow.hosts.lock(operation.target_id)
            held = uow.operations.lock(operation.id)
            if held is None or held.owner != self._owner or held.finished_at is not None:
                return
            held.state, held.message, held.progress = state, message, 1.0
            held.finished_at = held.updated_at = now
            if error is not None:
                held.error = {"code": error.code, "detail": error.message, "hint": error.hint}
            if host is not None:
                cut = held.verb == FENCE and state is OperationState.SUCCEEDED
                if cut and host.state in SILENT:
                    host.state, host.known_off = HostState.FENCED, Release.FENCED.value
                add_event(
                    uow,
                    "host.fenced" if cut else f"host.{held.verb}_{state}",
                    host_target(host),
                    now=now,
                    user_id=held.user_id,
                    operation_id=held.id,
                    message=message,
                )
            uow.after_commit(self._services.committed.notify)
            uow.commit()
