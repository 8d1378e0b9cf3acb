"""The form of a new workload: from fields that a person fills in to a spec, and back. Pure.

Fields have the dotted names of the spec (``resources.memory``, ``nics.0.network``), so that what
the API finds wrong is shown beside them. What does not fit the kind stays in the form, unseen, and
is not read: whoever chooses another kind and comes back finds what was typed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from virtmgr.domain.difference import to_yaml

Fields = dict[str, str]


@dataclass(frozen=True)
class KindChoice:
    """A kind of workload, as the form offers it."""

    name: str
    title: str
    about: str
    icon: str
    kind: str  # of the spec
    init: str | None
    image_types: tuple[str, ...]


KINDS: Final = (
    KindChoice(
        "vm", "Virtual machine", "Its own kernel, any operating system.", "device-desktop",
        "vm", None, ("disk", "kernel"),
    ),
    KindChoice(
        "system", "System container", "A whole Linux userland with its own init.", "server-2",
        "container", "system", ("container",),
    ),
    KindChoice(
        "app", "Application container", "One process from an OCI image.", "package",
        "container", "app", ("container",),
    ),
)  # fmt: skip

_ONLY: Final[Mapping[str, tuple[str, ...]]] = {
    "firmware": ("vm",),
    "boot": ("vm",),
    "cdrom": ("vm",),
    "no_vnc": ("vm",),
    "resources.pids": ("system", "app"),
    "env": ("system", "app"),
    "command": ("app",),
    "workdir": ("app",),
    "user": ("app",),
    "user_data": ("vm", "system"),
    "ssh_keys": ("vm", "system"),
}
"""Fields that only some kinds have."""

ROWS: Final[Mapping[str, Fields]] = {
    "nics": {"network": "default", "address": ""},
    "volumes": {"volume": "", "path": "", "read_only": ""},
    "ports": {"host": "", "guest": "", "protocol": "tcp", "address": "127.0.0.1"},
    "affinity": {"mode": "apart", "labels": "", "scope": "host", "required": "true"},
}
"""What may be there several times, with what a new one holds."""

_BYTE_RATES: Final = ("read_bytes_per_second", "write_bytes_per_second")
_OPERATION_RATES: Final = ("read_operations_per_second", "write_operations_per_second")
_ROW_NAME: Final = re.compile(r"(nics|volumes|ports|affinity)\.(\d{1,3})\.(\w+)")


@dataclass(frozen=True)
class Wanted:
    """What the form says. ``wrong``: what cannot even be sent, by field."""

    project: str
    count: int
    spec: dict[str, Any]
    wrong: Mapping[str, str] = field(default_factory=dict)


def blank(given: Mapping[str, str]) -> Fields:
    """A new form; ``given`` comes from the page's address, such as an image to start from."""
    start = {
        "kind_of": "app",
        "count": "1",
        "resources.vcpus": "1",
        "resources.memory": "512MiB",
        "restart": "on-failure",
        "started": "true",
    }
    return {**start, **_row("nics", 0), **given}


def choice_of(fields: Mapping[str, str]) -> KindChoice:
    """The kind that is chosen."""
    found = {choice.name: choice for choice in KINDS}
    return found.get(fields.get("kind_of", ""), KINDS[-1])


def fits(name: str, kind: str) -> bool:
    """Whether the field is one of the kind's."""
    return kind in _ONLY.get(name, (kind,))


def unseen(fields: Mapping[str, str], kind: str) -> Fields:
    """What was typed for another kind."""
    return {name: text for name, text in fields.items() if text and not fits(name, kind)}


def rows(fields: Mapping[str, str], group: str) -> list[tuple[str, Fields]]:
    """The rows of a group, each with the beginning of its fields' names: ``nics.0``."""
    found: dict[int, Fields] = {}
    for name, text in fields.items():
        match = _ROW_NAME.fullmatch(name)
        if match is not None and match[1] == group:
            found.setdefault(int(match[2]), {})[match[3]] = text
    return [(f"{group}.{number}", found[number]) for number in sorted(found)]


def with_row(fields: Mapping[str, str], group: str) -> Fields:
    """The form with one more row, if there may be one more."""
    if group not in ROWS:
        return dict(fields)
    return {**fields, **_row(group, len(rows(fields, group)))}


def without_row(fields: Mapping[str, str], prefix: str) -> Fields:
    """The form without a row (``nics.1``); those after it move up."""
    group = prefix.partition(".")[0]
    kept = [row for name, row in rows(fields, group) if name != prefix]
    rest = {name: text for name, text in fields.items() if not name.startswith(f"{group}.")}
    for number, row in enumerate(kept):
        rest |= {f"{group}.{number}.{name}": text for name, text in row.items()}
    return rest


def _row(group: str, number: int) -> Fields:
    return {f"{group}.{number}.{name}": text for name, text in ROWS[group].items()}


def packed(fields: Mapping[str, str]) -> Fields:
    """The form with rows numbered 0, 1, 2, …, as the API numbers them."""
    result = dict(fields)
    for group in ROWS:
        result = without_row(result, f"{group}.none")
    return result


# ---- reading


def read(fields: Mapping[str, str]) -> Wanted:
    """What the form says."""
    reader = Reader(fields)
    spec = reader.spec()
    count = reader.whole("count") or 1
    return Wanted(reader.text("project") or "default", count, spec, reader.wrong)


class Reader:
    """Reads fields, and notes those that cannot be read."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._choice = choice_of(fields)
        self.wrong: dict[str, str] = {}

    def spec(self) -> dict[str, Any]:
        """All that is given; what is left out has the API's defaults."""
        choice = self._choice
        found: dict[str, Any] = {
            "kind": choice.kind,
            "init": choice.init,
            **{name: self.text(name) for name in ("image", "description")},
            "labels": self.pairs("labels"),
            "resources": self._resources(),
            "root_disk": _given({"size": self.text("root_disk.size")}),
            "volumes": [self._volume(*row) for row in rows(self._fields, "volumes")],
            "nics": [self._nic(row) for _, row in rows(self._fields, "nics")],
            "ports": [self._port(*row) for row in rows(self._fields, "ports")],
            "command": self._command(),
            "env": self.pairs("env"),
            **{name: self.text(name) for name in ("workdir", "user", "firmware", "cdrom")},
            "user_data": self._user_data(),
            "boot": (self.text("boot") or "").split(),
            "vnc": False if self.on("no_vnc") else None,
            "restart": self.text("restart"),
            "stop_timeout": self.whole("stop_timeout"),
            "protected": True if self.on("protected") else None,
            "ha": self._ha(),
            "placement": self._placement(),
            "state": None if self.on("started") else "stopped",
        }
        nics = found.pop("nics")
        spec = {"name": self.text("name") or "", **_given(found)}
        if nics != [{"network": "default"}]:
            spec["nics"] = nics
        if spec.get("restart") == "on-failure":
            del spec["restart"]
        return spec

    def text(self, name: str) -> str | None:
        if not fits(name, self._choice.name):
            return None
        return self._fields.get(name, "").strip() or None

    def on(self, name: str) -> bool:
        return self.text(name) is not None

    def whole(self, name: str) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if re.fullmatch(r"-?[0-9]{1,9}", text):
            return int(text)
        self.wrong[name] = f"{text!r} is no whole number"
        return None

    def number(self, name: str) -> float | None:
        text = self.text(name)
        if text is None:
            return None
        if re.fullmatch(r"[0-9]{1,4}([.][0-9]{1,3})?", text):
            value = float(text)
            return int(value) if value.is_integer() else value
        self.wrong[name] = f"{text!r} is no number, such as 2 or 0.5"
        return None

    def pairs(self, name: str) -> dict[str, str]:
        """Lines of KEY=VALUE."""
        if not fits(name, self._choice.name):
            return {}
        found, wrong = read_pairs(self._fields.get(name, ""))
        if wrong:
            self.wrong[name] = wrong
        return found

    def _resources(self) -> dict[str, Any]:
        io = {name: self.text(f"resources.io.{name}") for name in _BYTE_RATES}
        operations = {name: self.whole(f"resources.io.{name}") for name in _OPERATION_RATES}
        return _given(
            {
                "vcpus": self.number("resources.vcpus"),
                "memory": self.text("resources.memory"),
                "pids": self.whole("resources.pids"),
                "io": _given({**io, **operations}),
            }
        )

    def _nic(self, row: Fields) -> dict[str, Any]:
        address = row.get("address", "").strip()
        network = row.get("network", "").strip() or "default"
        return _given({"network": network, "address": address or None})

    def _volume(self, prefix: str, row: Fields) -> dict[str, Any]:
        if not row.get("volume"):
            self.wrong[f"{prefix}.volume"] = "choose a volume, or remove the line"
        in_container = self._choice.kind == "container"
        path = row.get("path", "").strip() if in_container else ""
        mount = {"volume": row.get("volume", ""), "path": path or None}
        return _given({**mount, "read_only": True if row.get("read_only") else None})

    def _port(self, prefix: str, row: Fields) -> dict[str, Any]:
        ends = {end: self.whole(f"{prefix}.{end}") for end in ("host", "guest")}
        for end, value in ends.items():
            if value is None:
                self.wrong.setdefault(f"{prefix}.{end}", "a port from 1 to 65535")
        protocol = "udp" if row.get("protocol") == "udp" else None
        address = row.get("address", "").strip()
        usual = address in ("", "127.0.0.1")
        return _given({**ends, "protocol": protocol, "address": None if usual else address})

    def _command(self) -> list[str]:
        try:
            return shlex.split(self.text("command") or "")
        except ValueError as error:
            self.wrong["command"] = f"cannot be split into words: {error}"
            return []

    def _user_data(self) -> str | None:
        data = self._fields.get("user_data", "").replace("\r\n", "\n")
        given = data if self.on("user_data") else None
        keys = [line.strip() for line in (self.text("ssh_keys") or "").splitlines()]
        try:
            return with_keys(given, [key for key in keys if key])
        except ValueError as error:
            self.wrong["ssh_keys"] = str(error)
            return given

    def _ha(self) -> dict[str, Any]:
        if not self.on("ha.enabled"):
            return {}
        return {"enabled": True, **_given({"priority": self.whole("ha.priority") or None})}

    def _placement(self) -> dict[str, Any]:
        return _given(
            {
                "cluster": self.text("placement.cluster"),
                "host": self.text("placement.host"),
                "require": self.pairs("placement.require"),
                "prefer": self.pairs("placement.prefer"),
                "spread_by": self.text("placement.spread_by"),
                "affinity": [self._affinity(*row) for row in rows(self._fields, "affinity")],
            }
        )

    def _affinity(self, prefix: str, row: Fields) -> dict[str, Any]:
        labels, wrong = read_pairs(row.get("labels", "").replace(",", "\n"))
        if wrong or not labels:
            self.wrong[f"{prefix}.labels"] = wrong or "labels of the others, such as tier=web"
        scope, required = row.get("scope", "host"), bool(row.get("required"))
        return {
            "mode": row.get("mode", "apart"),
            "labels": labels,
            **({"scope": scope} if scope != "host" else {}),
            **({} if required else {"required": False}),
        }


def read_pairs(text: str) -> tuple[dict[str, str], str | None]:
    """Lines of KEY=VALUE, and what is wrong with them if something is."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if not line.strip():
            continue
        if not equals or not key.strip():
            return found, f"{line.strip()!r}: write KEY=VALUE, one a line"
        found[key.strip()] = value
    return found, None


def with_keys(user_data: str | None, keys: list[str]) -> str | None:
    """``user_data`` that also lets the owners of these SSH keys in.

    :raises ValueError: it is no cloud-config, so that keys cannot be added.
    """
    if not keys:
        return user_data
    if user_data is None:
        return "#cloud-config\n" + to_yaml({"ssh_authorized_keys": keys})
    if not user_data.startswith("#cloud-config"):
        raise ValueError("user data that is no #cloud-config brings its own keys: add them there")
    try:
        document = yaml.safe_load(user_data) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"the user data is no YAML: {error}") from error
    present = document.get("ssh_authorized_keys", []) if isinstance(document, dict) else None
    if not isinstance(present, list):
        raise ValueError("the user data has no list of ssh_authorized_keys to add to")
    return "#cloud-config\n" + to_yaml({**document, "ssh_authorized_keys": [*present, *keys]})


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def form_errors(found: Mapping[str, str], fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What the API found wrong (by its dotted names) by fields of the form.

    What has no field of its own is told at the one that holds it: ``labels.tier`` at ``labels``.
    """
    known = {*fields, *_ONLY, "labels", "image", "name", "ssh_keys", "root_disk.size"}
    for name, message in found.items():
        place = name.replace("placement.affinity", "affinity")
        while place and place not in known:
            place = place.rpartition(".")[0]
        yield (place or name, message if place in ("", name) else f"{name}: {message}")
