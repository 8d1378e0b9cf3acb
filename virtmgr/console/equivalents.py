"""What a form says, in the words of scripts: YAML, curl, the command line and Ansible. Pure.

Each text does what the form's button does, so that what was tried by hand can be automated.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import yaml

from virtmgr.domain.difference import to_yaml

Spec = Mapping[str, Any]

_MOST_DOCUMENTS: Final = 20
_END: Final = "END_OF_TEXT"


@dataclass(frozen=True)
class Equivalent:
    """One way to say it."""

    title: str
    about: str
    text: str


def of_creation(server: str, project: str, spec: Spec, count: int = 1) -> tuple[Equivalent, ...]:
    """How to create ``count`` workloads by ``spec`` without the console.

    :param server: the address of the API: https://NAME:PORT.
    """
    return (
        Equivalent("YAML", "for virtmgr apply -f FILE", as_yaml(project, spec, count)),
        Equivalent("Command line", "virtmgr", as_command(project, spec, count)),
        Equivalent("curl", "the REST API", as_curl(server, project, spec, count)),
        Equivalent("Ansible", "ansible.builtin.uri", as_ansible(server, project, spec, count)),
    )


def as_yaml(project: str, spec: Spec, count: int = 1) -> str:
    """Documents for ``virtmgr apply``: one for each workload, as far as they are few."""
    names = [str(spec.get("name", ""))]
    if 1 < count <= _MOST_DOCUMENTS:
        names = [f"{names[0]}-{number}" for number in range(1, count + 1)]
    documents = [to_yaml({"project": project, **spec, "name": name}) for name in names]
    note = ""
    if count > _MOST_DOCUMENTS:
        note = f"# One of {count}: so many at once are made by the command line or by curl.\n"
    return note + "---\n".join(documents)


def as_curl(server: str, project: str, spec: Spec, count: int = 1) -> str:
    """A request by curl; the token comes from the environment."""
    body = json.dumps(spec, indent=2, ensure_ascii=False)
    return (
        "curl --fail-with-body --cacert ca.pem \\\n"
        '  -H "Authorization: Bearer $VIRTMGR_TOKEN" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  --data {shlex.quote(body)} \\\n"
        f"  {shlex.quote(_address(server, project, count))}\n"
    )


def as_ansible(server: str, project: str, spec: Spec, count: int = 1) -> str:
    """A task; Ansible does not read templates into what comes from the form."""
    task = {
        "name": f"Create workload {spec.get('name', '')}",
        "ansible.builtin.uri": {
            "url": _address(server, project, count),
            "method": "POST",
            "ca_path": "ca.pem",
            "headers": {"Authorization": _Template("Bearer {{ virtmgr_token }}")},
            "body_format": "json",
            "body": dict(spec),
            "status_code": 202,
        },
    }
    return str(yaml.dump([task], Dumper=_AnsibleDumper, sort_keys=False, allow_unicode=True))


def as_command(project: str, spec: Spec, count: int = 1) -> str:
    """``virtmgr create``; what it has no options for goes to ``virtmgr apply``."""
    if spec.get("placement", {}).get("affinity") or spec.get("state") == "paused":
        return f"virtmgr apply -f - <<'{_END}'\n{as_yaml(project, spec, count)}{_END}\n"
    words = [f"--{name}={shlex.quote(text)}" for name, text in _options(project, spec, count)]
    words += [f"--{name}" for name in _flags(spec)]
    text = " \\\n  ".join([f"virtmgr create {shlex.quote(str(spec.get('name', '')))}", *words])
    if spec.get("command"):
        text += f" \\\n  -- {shlex.join(spec['command'])}"
    if spec.get("user_data"):
        data = str(spec["user_data"])
        text += f" <<'{_END}'\n{data}{'' if data.endswith(chr(10)) else chr(10)}{_END}"
    return f"{text}\n"


def _options(project: str, spec: Spec, count: int) -> Iterator[tuple[str, str]]:
    yield "project", project
    yield from _plain(spec, ("kind", "init", "image", "description"))
    yield from _resources(spec.get("resources", {}))
    yield from _plain({"disk": spec.get("root_disk", {}).get("size")}, ("disk",))
    yield from _devices(spec)
    for option, pairs in (("label", spec.get("labels", {})), ("env", spec.get("env", {}))):
        yield from ((option, f"{key}={value}") for key, value in pairs.items())
    names = ("workdir", "user", "firmware", "cdrom", "restart", "stop_timeout")
    yield from _plain(spec, names)
    yield from (("boot", device) for device in spec.get("boot") or ())
    yield from _plain({"user-data": "-" if spec.get("user_data") else None}, ("user-data",))
    yield from _plain({"ha-priority": spec.get("ha", {}).get("priority")}, ("ha-priority",))
    yield from _placement(spec.get("placement", {}))
    yield from _plain({"count": count if count > 1 else None}, ("count",))


def _plain(values: Mapping[str, Any], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if values.get(name) is not None:
            yield name.replace("_", "-"), str(values[name])


def _resources(resources: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _plain(resources, ("vcpus", "memory", "pids"))
    yield from ((_IO_OPTIONS[name], str(each)) for name, each in resources.get("io", {}).items())


def _devices(spec: Spec) -> Iterator[tuple[str, str]]:
    nics = spec.get("nics")
    yield from (("network", _nic(nic)) for nic in nics or ())
    if nics == []:
        yield "network", "none"
    yield from (("port", _port(port)) for port in spec.get("ports", ()))
    yield from (("volume", _volume(mount)) for mount in spec.get("volumes", ()))


_IO_OPTIONS: Final = {
    "read_bytes_per_second": "io-read",
    "write_bytes_per_second": "io-write",
    "read_operations_per_second": "io-read-ops",
    "write_operations_per_second": "io-write-ops",
}


def _placement(placement: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("cluster", "host", "spread_by"):
        if placement.get(name):
            yield name.replace("_", "-"), str(placement[name])
    for name in ("require", "prefer"):
        yield from ((name, f"{key}={value}") for key, value in placement.get(name, {}).items())


def _flags(spec: Spec) -> Iterator[str]:
    if spec.get("vnc") is False:
        yield "no-vnc"
    if spec.get("protected"):
        yield "protected"
    if spec.get("ha", {}).get("enabled"):
        yield "ha"
    if spec.get("state") == "stopped":
        yield "stopped"


def _nic(nic: Mapping[str, Any]) -> str:
    address = nic.get("address", "auto")
    return str(nic["network"]) if address == "auto" else f"{nic['network']}:{address}"


def _port(port: Mapping[str, Any]) -> str:
    text = f"{port.get('host')}:{port.get('guest')}"
    address = str(port.get("address", ""))
    if address:
        text = f"[{address}]:{text}" if ":" in address else f"{address}:{text}"
    return f"{text}/udp" if port.get("protocol") == "udp" else text


def _volume(mount: Mapping[str, Any]) -> str:
    parts = [str(mount.get("volume"))]
    parts += [str(mount["path"])] if mount.get("path") else []
    parts += ["ro"] if mount.get("read_only") else []
    return ":".join(parts)


def _address(server: str, project: str, count: int) -> str:
    query = f"?count={count}" if count > 1 else ""
    return f"{server}/api/v1/projects/{quote(project, safe='')}/workloads{query}"


class _Template(str):
    """A text that Ansible is to read as a template."""


class _AnsibleDumper(yaml.SafeDumper):
    """Marks texts that look like templates and are none."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    is_template = any(mark in value for mark in ("{{", "{%", "{#"))
    tag = "!unsafe" if is_template else "tag:yaml.org,2002:str"
    style = "|" if "\n" in value else '"' if is_template else None
    return dumper.represent_scalar(tag, value, style=style)


def _template(dumper: yaml.SafeDumper, value: _Template) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style='"')


_AnsibleDumper.add_representer(str, _text)
_AnsibleDumper.add_representer(_Template, _template)
