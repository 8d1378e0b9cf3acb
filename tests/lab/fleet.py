"""The lab and its hosts, as code uses them.

Every method may be called again; what is already so stays so. Several processes may use one lab:
who changes something holds its state alone meanwhile.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.lab import network, plan
from tests.lab.kernel import (
    ControlGroup,
    LabError,
    Process,
    checked,
    hierarchies,
    in_group,
    in_network,
    wait_until,
)
from tests.lab.plan import Flavour, HostPlan
from tests.lab.roots import root_tree
from tests.lab.state import Changes, HostState, LabState

DEFAULT_DIRECTORY = Path("/var/lib/virtmgr-lab")
_BOOT_SECONDS = 60.0
_HERE = Path(__file__).resolve().parent
_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
)


@dataclass(frozen=True)
class Lab:
    """The lab of a directory. Its last part names the lab's control group: one lab, one name.

    ``binds`` are directories of the machine that hosts see, read-only, at the same path.
    """

    directory: Path = DEFAULT_DIRECTORY
    binds: tuple[Path, ...] = ()
    say: Callable[[str], None] = lambda _: None

    # --- the whole

    def up(self, plans: Iterable[HostPlan]) -> list[LabHost]:
        """Bring up these hosts, beside those that are up; ready when it returns.

        :raises LabError: something did not come up. ``down`` takes away what did.
        """
        wanted = list(plans)
        for release, flavour in sorted({(each.release, each.flavour) for each in wanted}):
            root_tree(release, flavour, self.say)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "shared").mkdir(exist_ok=True)
        with self._state.change() as changes:
            self._make_key()
            known = {host.number: host for host in changes.hosts()}
            for each in wanted:
                if each.number not in known:
                    known[each.number] = HostState(each.number, each.release, each.flavour)
                    changes.save(known[each.number])
            self._write_hosts(changes)
            switch = self._switch(changes)
            hosts = [LabHost(self, known[each.number].plan) for each in wanted]
            for host in hosts:
                host._power_on(changes, switch)
        for host in hosts:
            host.wait_until_ready()
        return hosts

    def down(self) -> None:
        """Take everything away: processes, and with them mounts, links and loop devices; files."""
        group = self._group("")
        group.kill()
        group.remove()
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def hosts(self) -> list[LabHost]:
        """Those that are up or without power."""
        return [LabHost(self, state.plan) for state in self._state.hosts()]

    def host(self, name: str) -> LabHost:
        """:raises LabError: there is none of that name."""
        for host in self.hosts():
            if host.name == name:
                return host
        raise LabError(f"the lab has no host {name!r}")

    # --- the control plane's place in it

    def attached(self, argv: Sequence[str]) -> list[str]:
        """``argv`` as a command on the machine that has the lab's network in place of its own.

        Names of hosts resolve there. The command belongs to the lab and ends with it.

        :raises LabError: the lab is not up.
        """
        switch = self._running_switch()
        resolve = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2'
        names = [str(self.directory / name) for name in ("etc-hosts", "resolv.conf")]
        private = ["unshare", "--mount", "--propagation", "slave", "--", "/bin/sh", "-c",
                   resolve + ' && exec "$@"', "sh", *names, *argv]  # fmt: skip
        return in_group(self._group("control"), in_network(switch, private))

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the machine, attached to the lab's network."""
        return subprocess.run(
            self.attached(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=check, timeout=timeout,
        )  # fmt: skip

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``: hosts by name, the lab's key, and their keys to check."""
        return self.directory / "ssh_config"

    @property
    def password(self) -> str:
        """With which ``operator`` becomes root."""
        return (self.directory / "password").read_text().strip()

    # --- inside

    @property
    def _state(self) -> LabState:
        return LabState(self.directory / "state.db")

    def _group(self, name: str) -> ControlGroup:
        return ControlGroup(f"{self.directory.name}/{name}".rstrip("/"))

    def _make_key(self) -> None:
        if not (self.directory / "id_ed25519").exists():
            _make_ssh_key(self.directory / "id_ed25519", "virtmgr-lab")
        password = self.directory / "password"
        if not password.exists():
            password.touch(mode=0o600)
            password.write_text(secrets.token_urlsafe(12) + "\n")
        (self.directory / "resolv.conf").write_text(f"nameserver {plan.UPLINK_RESOLVER}\n")

    def _write_hosts(self, changes: Changes) -> None:
        """Make new hosts' disks and keys, and tell all hosts of each other."""
        states = changes.hosts()
        plans = [state.plan for state in states]
        text = plan.hosts_file(plans)
        known_hosts = []
        for state in states:
            host = LabHost(self, state.plan)
            host._make()
            public = (host.directory / "ssh_host_key.pub").read_text().split()
            known_hosts.append(f"{host.name},{host.address} {public[0]} {public[1]}\n")
            if Process(state.pid, state.started).is_alive:
                Path(f"/proc/{state.pid}/root/etc/hosts").write_text(text)
        (self.directory / "etc-hosts").write_text(text)
        (self.directory / "known_hosts").write_text("".join(known_hosts))
        self.ssh_config.write_text(
            plan.ssh_config(
                plans,
                key=str(self.directory / "id_ed25519"),
                known_hosts=str(self.directory / "known_hosts"),
            )
        )

    def _switch(self, changes: Changes) -> Process:
        """The process that holds the switch's namespace; the switch is made when it is gone."""
        noted = changes.process("switch")
        if noted is not None and Process(*noted).is_alive:
            return Process(*noted)
        group = self._group("switch")
        group.make()
        group.kill()
        self._group("control").make()
        switch = self._start(group, ["unshare", "--net", "--", "/bin/sh", "-c",
                                     "echo ready; exec sleep infinity"])  # fmt: skip
        network.make_switch(switch)
        self._start_uplink(group, switch)
        changes.note_process("switch", switch.pid, switch.started)
        return switch

    def _start_uplink(self, group: ControlGroup, switch: Process) -> None:
        """A way out for hosts that changes nothing on the machine: in user mode, by slirp4netns."""
        with (self.directory / "uplink.log").open("w") as log:
            subprocess.run(
                in_group(group, ["setsid", "--fork", "slirp4netns", "--configure", "--mtu=1500",
                                 "--disable-host-loopback", f"--cidr={plan.UPLINK_CIDR}",
                                 str(switch.pid), network.UPLINK]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
            )  # fmt: skip
        network.route_to_uplink(switch)

    def _running_switch(self) -> Process:
        with self._state.change() as changes:
            noted = changes.process("switch")
        if noted is None or not Process(*noted).is_alive:
            raise LabError(f"the lab in {self.directory} is not up")
        return Process(*noted)

    def _start(self, group: ControlGroup, command: Sequence[str]) -> Process:
        """Start what says "ready" and stays; it, in a session of its own."""
        started = subprocess.Popen(
            in_group(group, ["setsid", "--fork", *command]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with started:
            assert started.stdout is not None
            if started.stdout.readline() != "ready\n":
                raise LabError(f"{' '.join(command)} did not start")
        (pid,) = group.pids() - {started.pid}
        return Process.of(pid)


@dataclass(frozen=True)
class LabHost:
    """One host of the lab."""

    lab: Lab
    plan: HostPlan

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def address(self) -> str:
        return self.plan.address

    @property
    def directory(self) -> Path:
        """Where the machine keeps the host's disk and keys."""
        return self.lab.directory / "hosts" / self.name

    @property
    def machine_id(self) -> str:
        return (self.directory / "machine-id").read_text().strip()

    @property
    def state(self) -> HostState:
        """What it is, and which faults it has."""
        return next(each for each in self.lab._state.hosts() if each.plan == self.plan)

    # --- use

    def command(self, *argv: str) -> list[str]:
        """``argv`` as a command of the machine that runs as root on the host, whatever its network.

        :raises LabError: the host has no power.
        """
        pid = self._first().pid
        enter = ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid",
                 "--cgroup", "--", "env", "-i", *_ENVIRONMENT,
                 f"TERM={os.environ.get('TERM', 'dumb')}", *argv]  # fmt: skip
        return in_group(self._cgroup, enter)

    def run(
        self, *argv: str, input: str | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` as root on the host; its output as text."""
        return subprocess.run(
            self.command(*argv), input=input, stdin=None if input else subprocess.DEVNULL,
            capture_output=True, text=True, check=check, timeout=timeout,
        )  # fmt: skip

    def ssh(
        self, *words: str, user: str = "root", check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``words`` on the host by ssh, from the control plane's place."""
        return self.lab.run(
            "ssh", "-F", str(self.lab.ssh_config), f"{user}@{self.name}", "--", *words,
            check=check, timeout=timeout,
        )  # fmt: skip

    def path(self, path: str) -> Path:
        """A path of the host, as the machine sees it while the host has power."""
        return Path(f"/proc/{self._first().pid}/root/{path.lstrip('/')}")

    @property
    def is_on(self) -> bool:
        state = self.state
        return Process(state.pid, state.started).is_alive

    @property
    def is_hung(self) -> bool:
        return self._cgroup.is_frozen

    # --- power

    def power_on(self) -> None:
        """Boot from the disk as it is; ready when it returns."""
        with self.lab._state.change() as changes:
            self._power_on(changes, self.lab._switch(changes))
        self.wait_until_ready()

    def power_off(self) -> None:
        """A power cut: the cable is dead first, so nobody hears of the end; then all are killed.

        What was written stays, also what was not yet synced: the machine keeps it.
        """
        with self.lab._state.change() as changes:
            state = changes.host(self.name)
            network.unplug(self.lab._switch(changes), self.name)
            self._stop_wire()
            self._cgroup.kill()
            self._cgroup.remove()
            changes.save(replace(state, pid=0, started=0))

    def hang(self) -> None:
        """Stop every process where it stands; connections stay open, and silent."""
        self._first()
        self._cgroup.freeze(True)
        wait_until(f"{self.name} hangs", lambda: self._cgroup.is_frozen, 10)

    def thaw(self) -> None:
        """Let a host that hangs go on."""
        self._cgroup.freeze(False)

    # --- the network

    def partition(self, *peers: str) -> None:
        """Cut it off from ``peers``: hosts, ``control``; from everything without any."""
        unknown = set(peers) - {host.name for host in self.lab.hosts()} - {plan.CONTROL}
        if unknown:
            raise LabError(
                f"there is nothing called {', '.join(sorted(unknown))} to be cut off from"
            )
        with self.lab._state.change() as changes:
            state = changes.host(self.name)
            changes.save(replace(state, cut_from=(*state.cut_from, *(peers or ("*",)))))
            network.partition(self.lab._switch(changes), changes.hosts())

    def degrade(self, *, delay: float | None = None, loss: float | None = None) -> None:
        """Make its cable slow (seconds, each way) or lossy (share of frames, each way)."""
        with self.lab._state.change() as changes:
            state = changes.host(self.name)
            state = replace(
                state,
                delay=state.delay if delay is None else delay,
                loss=state.loss if loss is None else loss,
            )
            changes.save(state)
            self._lay_wire(self.lab._switch(changes), state)

    def heal(self) -> None:
        """End every fault of its network: cuts, those of others from it too; delay; loss."""
        with self.lab._state.change() as changes:
            switch = self.lab._switch(changes)
            for each in changes.hosts():
                if each.plan == self.plan:
                    each = replace(each, delay=0.0, loss=0.0, cut_from=())
                    self._lay_wire(switch, each)
                rest = tuple(peer for peer in each.cut_from if peer != self.name)
                changes.save(replace(each, cut_from=rest))
            network.partition(switch, changes.hosts())

    # --- the disk

    def fill_disk(self, leave: int = 0) -> None:
        """Fill the file system of / and /var/lib up to ``leave`` bytes."""
        filler = self.path("/var/lib/virtmgr-lab.fill")
        with filler.open("ab") as file:
            size = file.tell()
            while True:
                free = os.statvfs(filler).f_bavail * os.statvfs(filler).f_frsize
                step = free - leave
                while step > 0:
                    try:
                        os.posix_fallocate(file.fileno(), size, step)
                        break
                    except OSError:
                        step //= 2
                else:
                    return
                size += step

    def free_disk(self) -> None:
        """Take away what ``fill_disk`` put there."""
        self.path("/var/lib/virtmgr-lab.fill").unlink(missing_ok=True)

    # --- inside

    @property
    def _cgroup(self) -> ControlGroup:
        return self.lab._group(self.name)

    @property
    def _wire_group(self) -> ControlGroup:
        return self.lab._group(f"wire-{self.name}")

    def _first(self) -> Process:
        state = self.state
        first = Process(state.pid, state.started)
        if not first.is_alive:
            raise LabError(f"host {self.name} has no power")
        return first

    def _make(self) -> None:
        """Its disk, keys and identity, unless they are there."""
        if (self.directory / "machine-id").exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        tree = root_tree(self.plan.release, self.plan.flavour, self.lab.say)
        checked(
            [
                "cp",
                "--sparse=always",
                "--reflink=auto",
                str(tree.disk),
                str(self.directory / "disk.img"),
            ]
        )
        _make_ssh_key(self.directory / "ssh_host_key", f"root@{self.name}")
        # Last: with it, the host is made.
        (self.directory / "machine-id").write_text(secrets.token_hex(16) + "\n")

    def _configuration(self, hosts: str) -> dict[str, object]:
        tree = root_tree(self.plan.release, self.plan.flavour, self.lab.say)
        files = plan.host_files(
            self.plan,
            machine_id=self.machine_id,
            public_key=(self.lab.directory / "id_ed25519.pub").read_text(),
            host_key=(self.directory / "ssh_host_key").read_text(),
            host_public_key=(self.directory / "ssh_host_key.pub").read_text(),
        )
        return {
            "name": self.name,
            "machine_id": self.machine_id,
            "layers": [str(layer) for layer in tree.layers],
            "hierarchies": hierarchies(),
            "files": {path: asdict(file) for path, file in files.items()},
            "passwords": f"{plan.ADMINISTRATOR}:{self.lab.password}\n",
            "hosts": hosts,
            "shared": str(self.lab.directory / "shared"),
            "binds": [str(path) for path in self.lab.binds],
        }

    def _power_on(self, changes: Changes, switch: Process) -> None:
        state = changes.host(self.name)
        if Process(state.pid, state.started).is_alive:
            return
        network.unplug(switch, self.name)
        self._cgroup.make()
        self._cgroup.kill()  # what a power-on that did not get to its end has left
        configuration = self.directory / "boot.json"
        configuration.touch(mode=0o600)
        hosts = (self.lab.directory / "etc-hosts").read_text()
        configuration.write_text(json.dumps(self._configuration(hosts)))
        boot = [sys.executable, "-I", "-S", str(_HERE / "boot.py"), str(configuration)]
        command = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork",
                   "--propagation", "private", "--", *boot]  # fmt: skip
        with (
            (self.directory / "boot.log").open("w") as log,
            subprocess.Popen(
                in_group(self._cgroup, ["setsid", "--fork", *command]),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            ) as booting,
        ):  # fmt: skip
            assert booting.stdin is not None
            assert booting.stdout is not None
            said = booting.stdout.readline()
            if not said:
                raise LabError(f"{self.name} does not boot:\n{self._boot_log()}")
            first = Process.of(int(said))
            network.plug_in(switch, self.plan, first)
            self._lay_wire(switch, state)
            network.partition(switch, changes.hosts())
            changes.save(replace(state, pid=first.pid, started=first.started))
            booting.stdin.write("go\n")

    def wait_until_ready(self) -> None:
        """Until sshd listens, and libvirtd where it is prepared.

        :raises LabError: it did not in a minute.
        """
        sockets = ["/run/libvirt/libvirt-sock"] if self.plan.flavour is Flavour.PREPARED else []

        def ready() -> bool:
            if not self.is_on:
                raise LabError(f"{self.name} went down at once:\n{self._boot_log()}")
            return self._listens(22) and all(self.path(each).is_socket() for each in sockets)

        wait_until(f"{self.name} is ready", ready, _BOOT_SECONDS)

    def _listens(self, port: int) -> bool:
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{self._first().pid}/net/tcp").read_text().splitlines()[1:]
            return any(
                (words := line.split())[1].endswith(f":{port:04X}") and words[3] == "0A"
                for line in lines
            )
        return False

    def _boot_log(self) -> str:
        return (self.directory / "boot.log").read_text()

    def _lay_wire(self, switch: Process, state: HostState) -> None:
        """The cable as ``state`` says: plain, or by way of a slow wire."""
        if self._wire_group.pids():
            network.remove_wire(switch, self.name)
        self._stop_wire()
        if not (state.delay or state.loss):
            return
        self._wire_group.make()
        near, far = network.wire_ends(self.name)
        wire = [sys.executable, "-I", "-S", str(_HERE / "wire.py"), near, far,
                str(state.delay), str(state.loss)]  # fmt: skip
        self.lab._start(self._wire_group, in_network(switch, wire))
        network.insert_wire(switch, self.name)

    def _stop_wire(self) -> None:
        self._wire_group.kill()
        self._wire_group.remove()


def _make_ssh_key(path: Path, comment: str) -> None:
    for old in (path, path.with_name(path.name + ".pub")):
        old.unlink(missing_ok=True)
    checked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
