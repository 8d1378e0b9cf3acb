"""Cuts the power of hosts by their fence devices, and tests those.

The power counts as off only when a device said so after it was asked. A worker that dies leaves
its operation to the next one, which asks again: cutting what is off changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from virtmgr.domain.errors import Unavailable, VirtmgrError
from virtmgr.domain.failover import Release
from virtmgr.domain.fencing import by_level
from virtmgr.domain.host import HostState
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.services.container import Services
from virtmgr.services.fence_ways import Reached, reached
from virtmgr.services.fencing import FENCE, VERBS
from virtmgr.services.holding import heartbeat, keep_working, new_holder
from virtmgr.services.records import add_event, host_target

_LEASE: Final = timedelta(seconds=15)  # without a heartbeat
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
        with heartbeat(partial(self._beat, operation.id), name="fence"):
            self._carry_out(operation)
        return True

    def _beat(self, operation_id: str) -> None:
        """Hold on to an operation for as long as its devices take."""
        now = self._services.clock.now()
        with self._services.units() as uow:
            held = uow.operations.lock(operation_id)
            if held is not None and held.owner == self._owner and held.finished_at is None:
                held.lease_expires_at = now + _LEASE
                uow.commit()

    def _carry_out(self, operation: Operation) -> None:
        with self._services.units(read_only=True) as uow:
            host = uow.hosts.get(operation.target_id)
            devices = uow.fence_devices.of_host(operation.target_id)
            ways = {one.id: reached(self._services, uow, host, one) for one in devices if host}
            levels = by_level(devices if host is not None else ())
        found = [[ways[device.id] for device in level] for level in levels]
        came_back = host is None or host.state not in SILENT
        if operation.parameters.get("lost") and came_back:
            self._end(operation, OperationState.CANCELLED, "the host came back")
            return
        try:
            told = self._cut(found) if operation.verb == FENCE else self._test(found)
        except VirtmgrError as error:
            self._end(operation, OperationState.FAILED, error.message, error)
        else:
            self._end(operation, OperationState.SUCCEEDED, told)

    def _cut(self, levels: Sequence[Sequence[Reached]]) -> str:
        """Level after level, until all devices of one say that the power is off.

        :raises Unavailable: none did.
        """
        failures = []
        for level in levels:
            try:
                for device in level:
                    device.turn_off()
                for device in level:
                    self._await_off(device)
            except VirtmgrError as error:
                failures.append(error.message)
            else:
                return f"the power is off, says {', '.join(map(str, level))}"
        raise Unavailable(
            "; ".join(failures) or "there is no fence device any more",
            code="not_fenced",
            hint="look at the host itself; if it is off: 'virtmgr host confirm-off'",
        )

    def _await_off(self, device: Reached) -> None:
        deadline = time.monotonic() + _OFF_WITHIN
        while device.is_on():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"fence device {device.device.name!r} took the order, and says after "
                    f"{_OFF_WITHIN:.0f} s that the power is still on",
                    code="still_on",
                    hint="look at the host itself",
                )
            time.sleep(_ASK_AGAIN)

    def _test(self, levels: Sequence[Sequence[Reached]]) -> str:
        """Ask every device; nothing is switched.

        :raises VirtmgrError: one does not answer.
        """
        found = []
        for device in (one for level in levels for one in level):
            is_on = device.is_on()
            found.append(f"{device}: {'on' if is_on else 'off'}")
        return ", ".join(found)

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
