"""What was used over time, as the API shows it: columns, as charts want them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.services.usage_history import History


class HistoryView(View):
    """Averages over steps. Each list has one value for each step, null where it is unknown."""

    seconds: int = Field(description="Length of a step: 60 for the last hour, 900 for the day.")
    at: list[datetime] = Field(
        description="When each step ended. Steps without measures are left out."
    )
    cpus: list[float | None] = Field(description="1 is one whole CPU.")
    memory: list[int] = Field(description="Bytes.")
    disk: list[int] = Field(description="Bytes in use.")
    disk_read: list[float | None] = Field(description="Bytes a second.")
    disk_written: list[float | None]
    network_received: list[float | None]
    network_sent: list[float | None]


class HostUsageView(View):
    """What a host as a whole has used."""

    history: HistoryView


def present_history(history: History) -> HistoryView:
    """The points as columns."""
    points = [one.point for one in history.points]
    return HistoryView(
        seconds=history.seconds,
        at=[one.end for one in history.points],
        cpus=[point.cpus for point in points],
        memory=[point.memory for point in points],
        disk=[point.disk for point in points],
        disk_read=[point.disk_read for point in points],
        disk_written=[point.disk_written for point in points],
        network_received=[point.network_received for point in points],
        network_sent=[point.network_sent for point in points],
    )
