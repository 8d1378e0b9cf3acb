"""Machines in an inventory of Ansible (YAML), of which 'host add' takes what concerns it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from virtmgr.domain.errors import InvalidRequest

GROUP = "virtmgr_hosts"
"""The group of the machines to take; all where there is none of that name."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine to make a host of. What is None comes from options or is asked for."""

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    key_file: Path | None = None
    password: str | None = field(default=None, repr=False)
    become_password: str | None = field(default=None, repr=False)
    cluster: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    vms: bool | None = None
    host_key: str | None = None

    def or_else(self, **defaults: Any) -> Machine:
        """With these values where it has none of its own."""
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return replace(self, **missing)


def machine_at(address: str, name: str | None = None) -> Machine:
    """A machine that is given by its address alone; its name is the first part of it.

    :raises InvalidRequest: an IP address has no name in it.
    """
    if name is None:
        name = address.partition(".")[0].lower()
        if _is_ip(address):
            raise InvalidRequest(
                f"how shall the host at {address} be called?", hint="give --name NAME"
            )
    return Machine(name=name, address=address)


def machines_in(document: object, directory: Path) -> list[Machine]:
    """The machines of an inventory: those of group ``virtmgr_hosts``, else all.

    :param directory: relative paths of key files are relative to it.
    :raises InvalidRequest: it is no inventory, or something in it is not understood.
    """
    if not isinstance(document, Mapping) or not document:
        raise InvalidRequest("the inventory has no groups", hint="see docs/host-enrolment.md")
    found: dict[str, dict[str, Any]] = {}
    chosen = _group(document, GROUP)
    groups = {GROUP: chosen} if chosen is not None else document
    inherited = _variables(document.get("all") or {}, "all") if chosen is not None else {}
    for name, group in groups.items():
        for host, variables in _hosts(group or {}, str(name), inherited):
            found.setdefault(host, {}).update(variables)
    if not found:
        raise InvalidRequest("the inventory has no hosts")
    return [_machine(name, variables, directory) for name, variables in found.items()]


def _group(groups: Mapping[str, Any], wanted: str) -> Any:
    for name, group in groups.items():
        if name == wanted:
            return group or {}
        if isinstance(group, Mapping):
            inner = _group(_mapping(group.get("children"), f"children of {name}"), wanted)
            if inner is not None:
                return inner
    return None


def _hosts(
    group: Any, name: str, inherited: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    variables = {**inherited, **_variables(group, name)}
    for host, own in _mapping(group.get("hosts"), f"hosts of {name}").items():
        yield str(host), {**variables, **_mapping(own, f"host {host}")}
    for child, inner in _mapping(group.get("children"), f"children of {name}").items():
        yield from _hosts(inner or {}, str(child), variables)


def _variables(group: Any, name: str) -> Mapping[str, Any]:
    return _mapping(_mapping(group, f"group {name}").get("vars"), f"vars of {name}")


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"the inventory's {what}: a mapping is wanted, not {value!r:.80}")
    return value


def _machine(name: str, variables: Mapping[str, Any], directory: Path) -> Machine:
    def text(*names: str) -> str | None:
        for each in names:
            value = variables.get(each)
            if value is not None:
                if not isinstance(value, (str, int)) or "{{" in str(value):
                    raise InvalidRequest(
                        f"host {name} of the inventory: {each} is no plain text",
                        hint="templates and vaults are Ansible's own: run the playbook "
                        "virtmgr.core.enroll with that inventory instead",
                    )
                return str(value)
        return None

    key = text("ansible_ssh_private_key_file", "ansible_private_key_file")
    port = text("ansible_port", "ansible_ssh_port")
    labels = _mapping(variables.get("virtmgr_labels"), f"virtmgr_labels of {name}")
    address = text("ansible_host", "ansible_ssh_host") or name
    return Machine(
        name=text("virtmgr_host") or (name if _is_ip(name) else name.partition(".")[0]),
        address=address,
        port=None if port is None else int(port),
        user=text("ansible_user", "ansible_ssh_user"),
        key_file=None if key is None else directory / Path(key).expanduser(),
        password=text("ansible_password", "ansible_ssh_pass"),
        become_password=text("ansible_become_password", "ansible_become_pass"),
        cluster=text("virtmgr_cluster"),
        labels={str(key): str(value) for key, value in labels.items()},
        vms=variables.get("virtmgr_vms"),
        host_key=text("virtmgr_host_key"),
    )


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
