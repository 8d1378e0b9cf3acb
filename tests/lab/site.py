"""Where a lab is: its directory, its control groups, its state, and processes started in it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import plan
from tests.lab.kernel import ControlGroup, LabError, Process, in_group
from tests.lab.state import LabState


@dataclass(frozen=True)
class Site:
    """The last part of ``directory`` names the lab's control group: one lab, one name."""

    directory: Path

    @property
    def state(self) -> LabState:
        return LabState(self.directory / "state.db")

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``: hosts by name, the lab's key, and their keys to check."""
        return self.directory / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def key(self) -> Path:
        """The private key that every host lets in; the public one is beside it."""
        return self.directory / "id_ed25519"

    @property
    def password_file(self) -> Path:
        return self.directory / "password"

    @property
    def hosts_file(self) -> Path:
        """``/etc/hosts`` for everything that is attached to the lab's network."""
        return self.directory / "etc-hosts"

    @property
    def resolver_file(self) -> Path:
        return self.directory / "resolv.conf"

    @property
    def shared(self) -> Path:
        """A directory that all hosts see at ``/srv/shared``."""
        return self.directory / "shared"

    def host_directory(self, host: plan.HostPlan) -> Path:
        """Where the machine keeps a host's disk and keys."""
        return self.directory / "hosts" / host.name

    def group(self, name: str) -> ControlGroup:
        """One of the lab's control groups; the whole lab's is the one without a name."""
        return ControlGroup(f"{self.directory.name}/{name}".rstrip("/"))

    def start(self, group: ControlGroup, command: Sequence[str]) -> Process:
        """Start what says "ready" and stays, alone in its group, and outlives this process.

        :raises LabError: it did not say so.
        """
        group.make()
        # A log of its own: what outlives this process must not hold its caller's pipes open.
        with (
            (self.directory / f"{Path(group.path).name}.log").open("w") as log,
            subprocess.Popen(
                in_group(group, ["setsid", "--fork", *command]),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            ) as starting,
        ):  # fmt: skip
            assert starting.stdout is not None
            if starting.stdout.readline() != "ready\n":
                raise LabError(f"{' '.join(command)} did not start; see {log.name}")
        (pid,) = group.pids() - {starting.pid}
        return Process.of(pid)
