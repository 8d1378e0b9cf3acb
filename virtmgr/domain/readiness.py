"""Whether what an agent found on its host is good enough to schedule on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from virtmgr.domain.host import DriverFacts, Fingerprint
from virtmgr.domain.workload import Reason

_NETWORK: Final = ("network_namespaces", "bridge", "veth")
"""What a kernel must have for NICs; agents that say nothing of it have it."""


def missing(facts: Mapping[str, Any]) -> tuple[Reason, ...]:
    """What keeps a host from being scheduled on; nothing: it is ready.

    :param facts: its last fingerprint, as the inventory keeps it.
    """
    try:
        fields = {name: facts[name] for name in Fingerprint.model_fields if name in facts}
        found = Fingerprint.model_validate(fields)
    except ValidationError:
        return (
            Reason(
                code="no_facts",
                message="its agent has not said yet what the machine has",
                hint="wait for its first sync; then see its agent's log",
            ),
        )
    return (*_agent(found), *_drivers(found.drivers), *_pool(found), *_network(found))


def _agent(found: Fingerprint) -> tuple[Reason, ...]:
    return () if found.fault is None else (found.fault,)


def _drivers(drivers: tuple[DriverFacts, ...]) -> tuple[Reason, ...]:
    if any(driver.healthy and driver.kinds for driver in drivers):
        return ()
    told = "; ".join(
        f"{driver.name}: {driver.reason.message if driver.reason else 'it does not work'}"
        for driver in drivers
    )
    hints = [driver.reason.hint for driver in drivers if driver.reason and driver.reason.hint]
    return (
        Reason(
            code="no_driver",
            message=f"nothing on it can run workloads ({told or 'it has no driver'})",
            hint=hints[0] if hints else "install libvirt, or crun and conmon",
        ),
    )


def _pool(found: Fingerprint) -> tuple[Reason, ...]:
    if found.disk > 0:
        return ()
    return (
        Reason(
            code="no_pool",
            message="it has no room for disks",
            hint="see to the file system of the agent's data directory",
        ),
    )


def _network(found: Fingerprint) -> tuple[Reason, ...]:
    lacking = [name for name in _NETWORK if found.kernel_features.get(name) is False]
    if not lacking:
        return ()
    return (
        Reason(
            code="no_network",
            message=f"its kernel cannot connect workloads: it lacks {', '.join(lacking)}",
            hint="load the kernel's modules for it, and restart the agent",
        ),
    )
