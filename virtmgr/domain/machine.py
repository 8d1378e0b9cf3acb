"""Which machine a host is: a name, its key and its workloads belong to one, until somebody says so.

A machine is known by its id (machine-id(5)). Copies of a machine have the same one unless it is
made anew; a machine without any is taken at its word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from virtmgr.domain.errors import Forbidden
from virtmgr.domain.host import Host

MAY_REPLACE: Final = "another_machine"
"""Among a host's facts until it joins: another machine may take its place."""


@dataclass(frozen=True)
class Machine:
    """What asks to be a host."""

    id: str
    hostname: str

    def __str__(self) -> str:
        return f"machine {self.hostname or 'without a name'} (id {self.id or 'unknown'})"


def known_machine(host: Host) -> Machine:
    """The machine that the host is, as far as it is known."""
    return Machine(str(host.facts.get("machine_id", "")), str(host.facts.get("hostname", "")))


def is_news(host: Host, found: Machine) -> bool:
    """Whether ``found`` is not the machine that the host is known to be."""
    return bool(found.id) and found.id != known_machine(host).id


def check_machine(
    host: Host, found: Machine, hosts: Iterable[Host], *, may_replace: bool = False
) -> None:
    """Refuse a machine that is not ``host``, or is another host.

    :param hosts: all that there are.
    :param may_replace: it was said that another machine takes the host's place.
    :raises Forbidden: it is not; the message names both.
    """
    if not is_news(host, found):
        return
    known = known_machine(host)
    if known.id and not may_replace:
        raise Forbidden(
            f"{found} asks as host {host.name!r}, which is {known}",
            code="another_machine",
            hint="if it is to take that machine's place, say so with 'virtmgr host token "
            f"{host.name} --again --another-machine', and let it join anew; if it is a copy, "
            "remove the agent's data directory from it, and enrol it under a name of its own",
        )
    for other in hosts:
        if other.id != host.id and known_machine(other).id == found.id:
            raise Forbidden(
                f"{found} asks as host {host.name!r}, and is host {other.name!r} already",
                code="machine_enrolled",
                hint="if it is that very machine, let it join again with 'virtmgr host token "
                f"{other.name} --again', or remove that host first; if it is a copy of it, such as "
                "a cloned VM, give it an id of its own: 'rm /etc/machine-id; "
                "systemd-machine-id-setup'",
            )
