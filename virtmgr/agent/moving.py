"""What goes with a workload to another host, and what comes from one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, BinaryIO

from virtmgr.domain.errors import DriverError, InvalidRequest
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.ports.driver import CanMove, Luggage
from virtmgr.ports.host import HostStorage


def pack(
    storage: HostStorage, driver: CanMove, workload: DesiredWorkload
) -> Generator[bytes, None, None]:
    """The disks of a workload at rest as a stream; it cannot be started until that ends.

    :raises HostError: it runs, is not on this host, or the disk fails.
    """
    volumes = {
        _name(volume.id): storage.ensure_volume(volume.id, volume.size)
        for volume in workload.volumes
    }
    with driver.leave(workload.id) as own:
        yield from storage.pack(Luggage({**own.files, **volumes}, own.facts))


def receive(storage: HostStorage, parameters: dict[str, Any], stream: BinaryIO) -> None:
    """Keep what comes from another host until its workload is desired here.

    :raises InvalidRequest: it is not said what it is.
    :raises StorageError: it is not what it should be, or the disk is full or fails.
    """
    try:
        arrival, limit = str(parameters["arrival"]), int(parameters["limit"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"an arrival is not described: {error!r}") from error
    storage.receive(arrival, stream, limit=limit)


def take_up_volumes(storage: HostStorage, workload: DesiredWorkload, luggage: Luggage) -> None:
    """Make what came of a workload's volumes the volumes on this host.

    :raises HostError: one is missing, or the disk is full or fails.
    """
    for volume in workload.volumes:
        file = luggage.files.get(_name(volume.id))
        if file is None:
            raise DriverError(
                f"volume {volume.name!r} did not come with workload {workload.name!r}",
                code="arrival_incomplete",
                hint="its data is still on the host that it came from",
            )
        storage.take_up_volume(volume.id, file)


def _name(volume_id: str) -> str:
    return f"volume-{volume_id}"
