"""The places of the console, as its menu, its palette and its tests know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Place:
    """A page that the menu leads to."""

    title: str
    path: str
    icon: str
    about: str  # one line, for the palette


PLACES: Final = (
    Place("Overview", "/", "dashboard", "health, capacity, and what needs a person"),
    Place("Workloads", "/workloads", "box", "VMs and containers of all projects"),
    Place("Hosts", "/hosts", "server-2", "machines, their load and life"),
    Place("Clusters", "/clusters", "stack-2", "hosts under one policy"),
    Place("Images", "/images", "photo", "what workloads are made of"),
    Place("Volumes", "/volumes", "database", "disks of their own"),
    Place("Networks", "/networks", "network", "addresses and topology"),
    Place("Projects", "/projects", "folder", "tenants, quotas and members"),
    Place("Users", "/users", "users", "people, roles and tokens"),
    Place("Operations", "/operations", "list-check", "work that runs, and that ran"),
    Place("Events", "/events", "history", "who did what, when and why"),
    Place("Settings", "/settings", "settings", "certificates, sessions, about"),
)

_OF_HOSTS: Final = ("/migrations", "/failovers", "/pools")


def current(path: str) -> Place | None:
    """The place that a page belongs to."""
    parts = path.split("/")
    if len(parts) > 4 and parts[1] == "projects":  # /projects/P/volumes/V
        path = f"/{parts[3]}"
    if path.startswith(_OF_HOSTS):
        path = "/hosts"
    below = [place for place in PLACES if path == place.path or path.startswith(place.path + "/")]
    return max(below, key=lambda place: len(place.path), default=None)
