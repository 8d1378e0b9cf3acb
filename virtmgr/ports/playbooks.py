"""Port to what installs software on machines by ssh: one playbook, one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from virtmgr.domain.installation import TaskFailed
from virtmgr.domain.ssh import HostKey


@dataclass(frozen=True, kw_only=True)
class Login:
    """How to log in and become root. Never shown."""

    user: str
    private_key: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    become_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class PlayRequest:
    """One run. ``id`` names its private directory: one run with an id at a time."""

    id: str
    playbook: str  # enroll, reinstall, …
    host: str
    address: str
    port: int
    host_key: HostKey
    login: Login
    join_token: str | None = field(default=None, repr=False)
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskBegan:
    role: str
    task: str


@dataclass(frozen=True)
class Said:
    """A line for the log."""

    text: str


@dataclass(frozen=True)
class MachineFound:
    """Which machine it is, known before anything is changed on it."""

    id: str
    hostname: str


Report = Callable[[TaskBegan | Said | MachineFound], None]
"""Called as it comes, in the thread that runs the playbook. What it raises ends the run."""


class Playbooks(Protocol):
    def scan(self, address: str, port: int) -> tuple[HostKey, ...]:
        """The keys that the ssh server at an address shows, the one to prefer first; within
        seconds.

        :raises HostError: it does not answer.
        """
        ...

    def prepare(self, say: Callable[[str], None]) -> None:
        """See that there is what machines install from; it may have to be made.

        :raises VirtmgrError: it cannot be made.
        """
        ...

    def run(
        self, request: PlayRequest, report: Report, cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        """Run a playbook to its end; the task that failed, or None.

        :raises HostError: it was cancelled or took too long, or it cannot be run.
        """
        ...

    def clean(self) -> None:
        """Remove what runs that were cut off have left, credentials above all."""
        ...
