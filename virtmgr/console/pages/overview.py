"""The first page: health at a glance, and what needs a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, g, render_template

from virtmgr.console import feed
from virtmgr.console.formatting import amount, number

blueprint = Blueprint("overview", __name__)

_EVENTS: Final = 8
RESOURCES: Final = (("vcpus", "vCPUs"), ("memory", "Memory"), ("disk", "Disk"))
_KINDS: Final = (
    ("Virtual machines", "vm", None),
    ("System containers", "container", "system"),
    ("App containers", "container", "app"),
)
_FIRST_STATES: Final = ("running", "failed", "unknown")  # of the columns; the others follow


@dataclass(frozen=True)
class Counted:
    """A number with the list behind it."""

    state: str
    count: int
    link: str


@dataclass(frozen=True)
class KindLine:
    """The workloads of one kind: all, and those in each state."""

    title: str
    total: Counted
    states: Sequence[Counted]


@dataclass(frozen=True)
class Gauge:
    """One resource: what is claimed of what may be, and what the machines really have."""

    title: str
    claimed: str
    limit: str
    capacity: str
    free: str
    share: float  # claimed of limit, 0 to 1
    real: float  # capacity of limit, 0 to 1

    @property
    def width(self) -> float:
        """Of the bar of 200."""
        return round(200 * min(1.0, self.share), 1)

    @property
    def mark(self) -> float:
        """Where the machines' own capacity is in a bar of 200."""
        return round(200 * min(1.0, self.real), 1)

    @property
    def tone(self) -> str:
        return "full" if self.share >= 0.9 else "high" if self.share >= 0.75 else "low"


@dataclass(frozen=True)
class Step:
    """What is to be done first in a new installation."""

    title: str
    text: str
    link: str
    action: str
    done: bool


@blueprint.get("/")
def show() -> str:
    """Hosts, workloads, capacity, alerts, and the latest events."""
    found = g.rest.get("/overview").document
    images = g.rest.get("/images", {"limit": 1, "count": "true", "fields": "id"})["total"]
    events = g.rest.get("/events", {"limit": _EVENTS})["items"]
    return render_template(
        "overview/show.html",
        alerts=[{**alert, "link": link_to(alert)} for alert in found["alerts"]],
        hosts=host_states(found["hosts"]),
        host_total=sum(count["count"] for count in found["hosts"]),
        kinds=kind_lines(found["workloads"]),
        workload_total=sum(count["count"] for count in found["workloads"]),
        gauges=gauges(found["totals"]),
        clusters=[{**part, "gauges": gauges(part["totals"])} for part in found["clusters"]],
        survives=least_survived(found["clusters"]),
        events=feed.lines(events),
        steps=first_steps(found, images),
    )


def least_survived(clusters: Iterable[Mapping[str, Any]]) -> int | None:
    """How many further hosts may fail in the cluster that stands it least; None: there are none."""
    return min((part["survives"] for part in clusters if part["hosts"]), default=None)


def link_to(alert: Mapping[str, Any]) -> str:
    """The list that shows all that an alert is about."""
    filters = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in alert["filters"].items()
    }
    return f"/{alert['noun']}?{urlencode(filters, doseq=True)}"


def host_states(counts: Iterable[Mapping[str, Any]]) -> list[Counted]:
    """Hosts by state, each with its list."""
    return [
        Counted(count["state"], count["count"], f"/hosts?state={count['state']}")
        for count in counts
    ]


def kind_lines(counts: Sequence[Mapping[str, Any]]) -> list[KindLine]:
    """Workloads by kind and state, each number with its list; kinds without any are left out."""
    lines = []
    for title, kind, init in _KINDS:
        mine = [count for count in counts if (count["kind"], count["init"]) == (kind, init)]
        if not mine:
            continue
        of_kind = {"kind": kind, **({"init": init} if init else {})}
        states = [
            Counted(
                count["state"],
                count["count"],
                f"/workloads?{urlencode({**of_kind, 'state': count['state']})}",
            )
            for count in sorted(mine, key=_column)
        ]
        total = sum(count["count"] for count in mine)
        lines.append(
            KindLine(title, Counted("", total, f"/workloads?{urlencode(of_kind)}"), states)
        )
    return lines


def _column(count: Mapping[str, Any]) -> tuple[int, str]:
    state = count["state"]
    first = _FIRST_STATES.index(state) if state in _FIRST_STATES else len(_FIRST_STATES)
    return first, state


def gauges(totals: Mapping[str, Mapping[str, float]]) -> list[Gauge]:
    """Each resource as a bar."""
    found = []
    for name, title in RESOURCES:
        write = number if name == "vcpus" else amount
        limit, claimed = totals["limit"][name], totals["claimed"][name]
        capacity = totals["capacity"][name]
        found.append(
            Gauge(
                title,
                write(claimed),
                write(limit),
                write(capacity),
                write(totals["free"][name]),
                claimed / limit if limit else 0.0,
                capacity / limit if limit else 1.0,
            )
        )
    return found


def first_steps(overview: Mapping[str, Any], images: int) -> list[Step]:
    """What is still to be done until the first workload runs; nothing once it does."""
    steps = [
        Step(
            "Add a host",
            "A Linux machine that virtmgr can reach by ssh; all that it needs is installed there.",
            "/hosts/add",
            "Add host",
            bool(overview["hosts"]),
        ),
        Step(
            "Import an image",
            "What workloads are made of: from a registry, a URL or a file of yours.",
            "/images/import",
            "Import image",
            bool(images),
        ),
        Step(
            "Create a workload",
            "A virtual machine or a container. It is placed on a host by itself.",
            "/workloads/create",
            "Create workload",
            bool(overview["workloads"]),
        ),
    ]
    return [] if all(step.done for step in steps) else steps
