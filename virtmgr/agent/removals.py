"""What is on the host and not desired there any more: volumes, and what only drivers know of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import structlog

from virtmgr.agent.outbox import Outbox
from virtmgr.domain.errors import HostError, VirtmgrError
from virtmgr.domain.sync import ObservedVolume
from virtmgr.ports.driver import WorkloadDriver
from virtmgr.ports.host import HostStorage

Submit = Callable[..., Any]
"""Lets a function run with these arguments in a thread, soon."""

_log = structlog.get_logger()


class VolumeRemoval:
    """Removes the files of volumes that are not in the inventory any more, each once at a time."""

    def __init__(
        self, storage: HostStorage, outbox: Outbox, is_needed: Callable[[str], bool], submit: Submit
    ) -> None:
        """:param is_needed: whether a workload of this host has the volume attached."""
        self._storage = storage
        self._outbox = outbox
        self._is_needed = is_needed
        self._submit = submit
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    def remove(self, volume_ids: Sequence[str]) -> None:
        """Begin to; it is told when they are gone."""
        for volume_id in volume_ids:
            with self._lock:
                if volume_id in self._under_way:
                    continue
                self._under_way.add(volume_id)
            self._submit(self._remove, volume_id)

    def _remove(self, volume_id: str) -> None:
        try:
            if self._is_needed(volume_id):
                return  # it has come back meanwhile, with the workload that it is attached to
            self._storage.remove_volume(volume_id)
            self._outbox.put_volume(ObservedVolume(id=volume_id, ready=False, gone=True))
        except HostError as error:
            _log.error("volume.not_removed", volume=volume_id, error=error.message)
        finally:
            with self._lock:
                self._under_way.discard(volume_id)


class Orphans:
    """Workloads that only a driver knows of. One that does not answer is asked again."""

    def __init__(self, known: Callable[[], Collection[str]], submit: Submit) -> None:
        """:param known: ids of the workloads that the agent keeps."""
        self._known = known
        self._submit = submit
        self._unsearched: set[WorkloadDriver] = set()

    def expect(self, drivers: Iterable[WorkloadDriver]) -> None:
        """All that should be here is known now: what else these have goes."""
        self._unsearched = set(drivers)

    def search(self) -> None:
        """Begin to remove those of the drivers that were not asked yet."""
        for driver in list(self._unsearched):
            try:
                found = driver.list()
            except VirtmgrError as error:
                _log.warning("orphans.not_searched", driver=driver.name, error=error.message)
                continue
            self._unsearched.discard(driver)
            known = self._known()
            for workload_id in found:
                if workload_id not in known:
                    self._submit(self._destroy, driver, workload_id)

    def _destroy(self, driver: WorkloadDriver, workload_id: str) -> None:
        _log.warning("workload.orphan", workload=workload_id)
        try:
            driver.destroy(workload_id)
        except VirtmgrError as error:
            _log.error("workload.orphan_stays", workload=workload_id, error=error.message)
            self._unsearched.add(driver)
