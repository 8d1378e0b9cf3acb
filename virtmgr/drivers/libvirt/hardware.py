"""What VMs that run see, as their definitions say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from xml.etree import ElementTree

from virtmgr.domain.cpu import HOST
from virtmgr.domain.workload import Hardware
from virtmgr.ports.driver import Inspection


class Hardwares:
    """Remembers it for as long as a run lasts: it stays, and a definition is long."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[datetime, Hardware]] = {}

    def put(
        self, workload_id: str, inspection: Inspection, definition: Callable[[], str]
    ) -> Inspection:
        """The inspection with what a VM that runs sees.

        :param definition: reads its XML.
        """
        started = inspection.started_at
        if inspection.pid is None or started is None:
            self.forget(workload_id)
            return inspection
        known = self._of.get(workload_id)
        if known is None or known[0] != started:
            known = started, read(definition())
            self._of[workload_id] = known
        return replace(inspection, hardware=known[1])

    def forget(self, workload_id: str) -> None:
        self._of.pop(workload_id, None)


def read(definition: str) -> Hardware:
    root = ElementTree.fromstring(definition)
    machine, model = root.find("os/type"), root.find("cpu[@mode='custom']/model")
    return Hardware(
        machine=machine.get("machine", "") if machine is not None else "",
        cpu=model.text or HOST if model is not None else HOST,
    )
