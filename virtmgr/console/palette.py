"""What the palette offers to do: beginnings, and verbs with what they are done to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from virtmgr.domain.network import known_address

_LEAST: Final = 2  # letters by which a verb is known


@dataclass(frozen=True)
class Doing:
    """Something to begin; a page leads to it."""

    title: str
    path: str
    icon: str


@dataclass(frozen=True)
class Verb:
    """Something to do with an object of the list at ``noun``.

    :param suffix: behind the object's address: a page, or what is sent (``sends``).
    :param only: the list's filters for objects that it makes sense for.
    :param asks: whether it is asked once more before it is sent.
    """

    title: str
    noun: str
    suffix: str
    icon: str
    only: Mapping[str, str] = field(default_factory=dict)
    sends: bool = False
    asks: bool = False


DOINGS: Final = (
    Doing("Create workload", "/workloads/create", "plus"),
    Doing("Add host", "/hosts/add", "plus"),
    Doing("Create cluster", "/clusters/create", "plus"),
    Doing("Import image", "/images/import", "download"),
    Doing("Upload image", "/images/upload", "upload"),
    Doing("Build image", "/images/build", "tool"),
    Doing("Prune images", "/images/prune", "trash"),
    Doing("Create volume", "/volumes/create", "plus"),
    Doing("Create network", "/networks/create", "plus"),
    Doing("Show topology of networks", "/networks/topology", "network"),
    Doing("Show map of hosts", "/hosts?view=map", "server-2"),
    Doing("Show migrations", "/migrations", "arrows-exchange"),
    Doing("Show failovers", "/failovers", "bolt"),
    Doing("Show pools", "/pools", "database"),
    Doing("Create project", "/projects/create", "plus"),
    Doing("Create user", "/users/create", "plus"),
    Doing("Change password, tokens and sessions", "/account", "key"),
)
_WORKLOADS: Final = "/workloads"
_HOSTS: Final = "/hosts"
_RUNNING: Final = {"state": "running"}
VERBS: Final = (
    Verb("Console", _WORKLOADS, "/console", "terminal-2", _RUNNING),
    Verb("Log", _WORKLOADS, "/console?show=log", "file"),
    Verb("Start", _WORKLOADS, "/start", "player-play", {"state": "stopped"}, sends=True),
    Verb("Stop", _WORKLOADS, "/stop", "player-stop", _RUNNING),
    Verb("Restart", _WORKLOADS, "/restart", "refresh", _RUNNING, sends=True, asks=True),
    Verb("Move", _WORKLOADS, "/move", "arrows-exchange"),
    Verb("Clone", _WORKLOADS, "/clone", "copy"),
    Verb("Publish", _WORKLOADS, "/publish", "photo"),
    Verb("Edit", _WORKLOADS, "/edit", "pencil"),
    Verb("Resize", _WORKLOADS, "/edit", "pencil"),
    Verb("Rename", _WORKLOADS, "/edit", "pencil"),
    Verb("Usage", _WORKLOADS, "/usage", "dashboard"),
    Verb("Files", _WORKLOADS, "/files", "file"),
    Verb("Drain", _HOSTS, "/drain", "arrows-exchange", {"state": "ready"}),
    Verb("Cordon", _HOSTS, "/cordon", "ban", {"state": "ready"}, sends=True),
    Verb("Uncordon", _HOSTS, "/uncordon", "circle-check", {"state": "cordoned"}, sends=True),
    Verb("Usage", _HOSTS, "/usage", "dashboard"),
)


def doings(text: str) -> Sequence[Doing]:
    """What has all words of the text in its title."""
    words = text.lower().split()
    return [one for one in DOINGS if all(word in one.title.lower() for word in words)]


def verbs(text: str) -> Sequence[tuple[Verb, str]]:
    """The verbs that the first word begins, each with the rest: the name of what it is done to."""
    first, _, rest = text.strip().partition(" ")
    if len(first) < _LEAST:
        return ()
    return [(verb, rest.strip()) for verb in VERBS if verb.title.lower().startswith(first.lower())]


def asked(noun: str, text: str) -> Mapping[str, str]:
    """The list's filters that find what is called so; workloads are found by their addresses, too.

    Few names look like addresses: with dots or colons they are none.
    """
    if noun == _WORKLOADS:
        with suppress(ValueError):
            return {"address": known_address(text)}
    return {"q": text}


def address(noun: str, item: Mapping[str, Any]) -> str:
    """Where the page of an object of a list is; names of images may have slashes: by their ids."""
    named = item["id"] if "/" in item["name"] else item["name"]
    path = f"{noun}/{quote(named, safe='')}"
    project = item.get("project")
    return f"/projects/{quote(project['name'], safe='')}{path}" if project else path
