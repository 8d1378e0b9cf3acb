"""The lab as code uses it.

Several processes may use one lab: who changes something holds its state alone meanwhile.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.lab import loops, plan, switch
from tests.lab.host import LabHost, finished, make_ssh_key
from tests.lab.kernel import LabError, wait_until
from tests.lab.plan import HostPlan
from tests.lab.roots import root_tree
from tests.lab.site import Site
from tests.lab.state import Changes, HostState

DEFAULT_DIRECTORY = Path("/var/lib/virtmgr-lab")
_END_SECONDS = 20.0


@dataclass(frozen=True)
class Lab:
    """Hosts and the network between them.

    ``say`` hears what takes long.
    """

    site: Site
    say: Callable[[str], None] = lambda _: None

    def up(self, plans: Iterable[HostPlan], *, binds: Sequence[Path] = ()) -> list[LabHost]:
        """Bring up these hosts, beside those that are up; ready when it returns.

        Those of a number that is known stay what they are. ``binds`` are directories of the machine
        that new hosts see, read-only, at the same path.

        :raises LabError: something did not come up. ``down`` takes away what did.
        """
        wanted = list(plans)
        for each in wanted:
            root_tree(each.release, each.flavour, self.say)
        self.site.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.site.shared.mkdir(exist_ok=True)
        with self.site.state.change() as changes:
            self._make_credentials()
            known = {state.number: state for state in changes.hosts()}
            for each in wanted:
                if each.number not in known:
                    known[each.number] = HostState(each.number, each.release, each.flavour)
                    changes.save(known[each.number])
            self._introduce(changes)
            running = switch.ensure(self.site, changes)
            hosts = [LabHost(self.site, known[each.number].plan) for each in wanted]
            for host in hosts:
                host.boot(changes, running, binds)
        for host in hosts:
            host.wait_until_ready()
        return hosts

    def down(self) -> None:
        """Take everything away: processes, and with them mounts and links; loop devices; files."""
        group = self.site.group("")
        group.kill()
        group.remove()
        for image in self.site.directory.glob("hosts/*/disk.img"):
            loops.release(image)
        # Again where it is not empty: of an "up" that was killed, a copy may go on for a moment.
        wait_until(f"{self.site.directory} is removed", self._remove_files, _END_SECONDS)

    def _remove_files(self) -> bool:
        with suppress(OSError):
            shutil.rmtree(self.site.directory)
        return not self.site.directory.exists()

    def hosts(self) -> list[LabHost]:
        """All, with and without power."""
        return [LabHost(self.site, state.plan) for state in self.site.state.hosts()]

    def host(self, name: str) -> LabHost:
        """:raises LabError: there is none of that name."""
        for host in self.hosts():
            if host.name == name:
                return host
        raise LabError(f"the lab has no host {name!r}")

    def attached(self, *argv: str) -> list[str]:
        """``argv`` as a command of the machine in the control plane's place in the network.

        :raises LabError: the lab is not up.
        """
        return switch.attached(self.site, argv)

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the machine in the control plane's place in the network.

        :raises LabError: the lab is not up; the command failed and ``check``.
        """
        return finished(self.attached(*argv), input="", check=check, timeout=timeout)

    @property
    def password(self) -> str:
        """With which ``operator`` becomes root."""
        return self.site.password_file.read_text().strip()

    def _make_credentials(self) -> None:
        if not self.site.key.exists():
            make_ssh_key(self.site.key, "virtmgr-lab")
        if not self.site.password_file.exists():
            self.site.password_file.touch(mode=0o600)
            self.site.password_file.write_text(secrets.token_urlsafe(12) + "\n")

    def _introduce(self, changes: Changes) -> None:
        """Make new hosts, and tell all of each other."""
        hosts = [LabHost(self.site, state.plan) for state in changes.hosts()]
        for host in hosts:
            tree = root_tree(host.plan.release, host.plan.flavour, self.say)
            host.make(tree.layers, tree.disk)
        plans = [host.plan for host in hosts]
        names = plan.hosts_file(plans)
        self.site.hosts_file.write_text(names)
        for state in changes.hosts():
            if state.process.is_alive:
                file = Path(f"/proc/{state.pid}/root/etc/hosts")
                file.unlink(missing_ok=True)  # it may be a link by now
                file.write_text(names)
        self.site.resolver_file.write_text(plan.resolver_file())
        self.site.known_hosts.write_text(
            "".join(f"{host.name},{host.address} {host.public_key}\n" for host in hosts)
        )
        self.site.ssh_config.write_text(
            plan.ssh_config(plans, key=str(self.site.key), known_hosts=str(self.site.known_hosts))
        )
