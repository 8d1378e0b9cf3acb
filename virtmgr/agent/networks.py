"""Keeps the host's networks as desired in a thread of its own; the newest wish wins.

Until the first wish nothing is done: to wish for nothing is to have every network removed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence

import structlog

from virtmgr.domain.errors import NetworkError, VirtmgrError
from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload
from virtmgr.domain.workload import PowerState
from virtmgr.ports.host import HostNetwork

_RETRY = 5.0  # seconds
_PATIENCE = 60.0  # seconds that a start waits for its network
_TRUST = 30.0  # seconds after which somebody else may have changed what was there

_log = structlog.get_logger()


class NetworkKeeper:
    """Serialises ``HostNetwork.ensure``; several wishes in a row cost one call."""

    def __init__(self, network: HostNetwork) -> None:
        self._network = network
        self._changed = threading.Condition()
        self._wish: tuple[Sequence[DesiredNetwork], Sequence[DesiredWorkload]] | None = None
        self._needs: object = None  # what of the wish makes a difference
        self._wished = 0
        self._done = 0
        self._done_at = 0.0
        self._error: VirtmgrError | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="networks", daemon=True)

    def start(self) -> None:
        self._network.recover()
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def wish(
        self, networks: Sequence[DesiredNetwork], workloads: Sequence[DesiredWorkload]
    ) -> None:
        """Let the host have exactly these networks, soon."""
        needs = (tuple(networks), tuple(map(_needs, workloads)))
        with self._changed:
            self._wish = (networks, workloads)
            if needs != self._needs or self._error is not None or self._is_old():
                self._needs = needs
                self._ask()

    def settle(self, network_ids: Collection[str]) -> None:
        """Wait until everything wished for so far is there, as far as these networks need it.

        :raises NetworkError: it could not be done; it is tried again in the background.
        """
        if not network_ids:
            return
        with self._changed:
            settled = self._changed.wait_for(
                lambda: self._wish is not None or self._closing, timeout=_PATIENCE
            )
            if settled and self._is_old():
                self._ask()
            mine = self._wished
            settled = settled and self._changed.wait_for(
                lambda: self._done >= mine or self._closing, timeout=_PATIENCE
            )
            error = self._error
        if error is not None:
            _raise_what_concerns(error, network_ids)
        if not settled:
            raise NetworkError(
                f"setting up this host's networks took longer than {_PATIENCE:.0f} s",
                hint="see the agent's log on the host",
            )

    def check_ports(self, workload: DesiredWorkload) -> None:
        """Refuse a workload whose published ports somebody else has.

        :raises NetworkError: with the port, and who has it.
        """
        conflict = self._network.port_conflicts([workload]).get(workload.id)
        if conflict is not None:
            raise NetworkError(
                f"publishing the ports of workload {workload.name!r}: {conflict}",
                code="port_taken",
                hint="publish another port, or end what has it",
            )

    def remove_port(self, nic_id: str) -> None:
        self._network.remove_port(nic_id)

    def _is_old(self) -> bool:
        """Whether nothing is under way, and what was done last may not hold any more."""
        return self._done == self._wished and time.monotonic() - self._done_at > _TRUST

    def _ask(self) -> None:
        self._wished += 1
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or self._done < self._wished,
                    timeout=_RETRY if self._error else None,
                )
                if self._closing:
                    return
                number, wish = self._wished, self._wish
            assert wish is not None  # nothing is asked for before the first one
            error = self._ensure(*wish)
            with self._changed:
                self._done, self._error, self._done_at = number, error, time.monotonic()
                self._changed.notify_all()

    def _ensure(
        self, networks: Sequence[DesiredNetwork], workloads: Sequence[DesiredWorkload]
    ) -> VirtmgrError | None:
        try:
            self._network.ensure(networks, workloads)
        except VirtmgrError as error:
            _log.warning("networks.failed", error=error.message, hint=error.hint)
            return error
        except Exception as error:  # noqa: BLE001  a thread's last resort: reported, not swallowed
            _log.exception("networks.crashed")
            return NetworkError(f"setting up this host's networks failed: {error!r}")
        return None


def _needs(workload: DesiredWorkload) -> object:
    """What of a workload its networks depend on."""
    stopped = workload.state is PowerState.STOPPED
    return workload.id, workload.name, workload.nics, workload.spec.ports, stopped


def _raise_what_concerns(error: VirtmgrError, network_ids: Collection[str]) -> None:
    """One network that cannot be had is no reason to keep workloads of others from starting."""
    failed: dict[str, dict[str, str | None]] | None = error.detail.get("networks")
    if failed is None:
        raise error
    for network_id in network_ids:
        why = failed.get(network_id)
        if why is not None:
            message = why["message"] or error.message
            raise NetworkError(message, code=why["code"], hint=why["hint"]) from error
