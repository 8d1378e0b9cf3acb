"""One host of the lab: its use, its power, and its faults."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.lab import loops, network, plan, switch
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
from tests.lab.site import Site
from tests.lab.state import Changes, HostState

_BOOT_SECONDS = 60.0
_HERE = Path(__file__).resolve().parent
_PYTHON = (sys.executable, "-I", "-S")
_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
)
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
_FILLER = "/var/lib/virtmgr-lab.fill"


@dataclass(frozen=True)
class LabHost:
    """Every method may be called again; what is already so stays so."""

    site: Site
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
        return self.site.host_directory(self.plan)

    @property
    def machine_id(self) -> str:
        return (self.directory / "machine-id").read_text().strip()

    @property
    def state(self) -> HostState:
        """What it is, and which faults it has.

        :raises LabError: the lab is gone.
        """
        for state in self.site.state.hosts():
            if state.plan == self.plan:
                return state
        raise LabError(f"the lab has no host {self.name} any more")

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self.state.process.is_alive

    @property
    def is_hung(self) -> bool:
        return self._cgroup.is_frozen

    # --- use

    def command(self, *argv: str) -> list[str]:
        """``argv`` as a command of the machine that runs as root on the host, whatever its network.

        :raises LabError: the host has no power.
        """
        enter = ["nsenter", f"--target={self._running().pid}", *_NAMESPACES, "--"]
        clean = ["env", "-i", *_ENVIRONMENT, f"TERM={os.environ.get('TERM', 'dumb')}"]
        return in_group(self._cgroup, [*enter, *clean, *argv])

    def run(
        self, *argv: str, input: str = "", check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` as root on the host; its output as text.

        :raises LabError: it failed and ``check``.
        """
        return finished(self.command(*argv), input=input, check=check, timeout=timeout)

    def ssh_command(self, *words: str, user: str = "root") -> list[str]:
        """``words`` as a command of the machine that runs on the host, by ssh."""
        ssh = ["ssh", "-F", str(self.site.ssh_config), f"{user}@{self.name}", *words]
        return switch.attached(self.site, ssh)

    def ssh(
        self,
        *words: str,
        user: str = "root",
        input: str = "",
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``words`` on the host by ssh, from the control plane's place.

        :raises LabError: it failed and ``check``.
        """
        command = self.ssh_command(*words, user=user)
        return finished(command, input=input, check=check, timeout=timeout)

    def path(self, path: str) -> Path:
        """A path of the host, as the machine sees it while the host has power.

        Mind that absolute symbolic links lead to the machine's files.
        """
        return Path(f"/proc/{self._running().pid}/root/{path.lstrip('/')}")

    # --- power

    def power_on(self) -> None:
        """Boot from the disk as it is; ready when it returns."""
        with self.site.state.change() as changes:
            self.boot(changes, switch.ensure(self.site, changes))
        self.wait_until_ready()

    def power_off(self) -> None:
        """A power cut: the cable is dead first, so nobody hears of the end; then all are killed.

        Nothing that was written is lost, synced or not: the machine keeps it.
        """
        with self.site.state.change() as changes:
            self._power_off(changes.host(self.name), changes, switch.found(changes))

    def reinstall(self) -> None:
        """The host as it was at its first power-on, with the same name, keys and machine id."""
        with self.site.state.change() as changes:
            at = switch.ensure(self.site, changes)
            self._power_off(changes.host(self.name), changes, at)
            self._copy_disk()
            self.boot(changes, at)
        self.wait_until_ready()

    def hang(self) -> None:
        """Stop every process where it stands; connections stay open, and silent."""
        self._running()
        self._cgroup.freeze(True)
        wait_until(f"{self.name} hangs", lambda: self.is_hung, 10)

    def thaw(self) -> None:
        """Let a host that hangs go on."""
        self._cgroup.freeze(False)

    # --- the network

    def partition(self, *peers: str) -> None:
        """Cut it off from ``peers``, hosts or ``control``; without any from everything.

        :raises LabError: there is no such peer.
        """
        with self.site.state.change() as changes:
            known = {state.plan.name for state in changes.hosts()} | {plan.CONTROL}
            if unknown := set(peers) - known:
                raise LabError(f"nothing here is called {', '.join(sorted(unknown))}")
            state = changes.host(self.name)
            cut_from = tuple(sorted({*state.cut_from, *(peers or (plan.EVERYTHING,))}))
            changes.save(replace(state, cut_from=cut_from))
            network.partition(switch.running(changes), changes.hosts())

    def degrade(self, *, delay: float | None = None, loss: float | None = None) -> None:
        """Make its cable slow (seconds, each way) or lossy (share of frames, each way)."""
        with self.site.state.change() as changes:
            state = changes.host(self.name)
            state = replace(
                state,
                delay=state.delay if delay is None else delay,
                loss=state.loss if loss is None else loss,
            )
            changes.save(state)
            self._lay_wire(switch.running(changes), state)

    def heal(self) -> None:
        """End every fault of its network: cuts, those of others from it too; delay; loss."""
        with self.site.state.change() as changes:
            running = switch.running(changes)
            for each in changes.hosts():
                if each.plan == self.plan:
                    healed = replace(each, delay=0.0, loss=0.0, cut_from=())
                    self._lay_wire(running, healed)
                else:
                    rest = (peer for peer in each.cut_from if peer != self.name)
                    healed = replace(each, cut_from=tuple(rest))
                changes.save(healed)
            network.partition(running, changes.hosts())

    # --- the disk

    def fill_disk(self, leave: int = 0) -> None:
        """Fill its disk, which / and /var/lib are on, up to ``leave`` bytes."""
        with self.path(_FILLER).open("ab") as filler:
            size = filler.tell()
            while (step := _free_bytes(filler.fileno()) - leave) > 0:
                # The file system keeps some blocks for itself, so not all that is free can be had.
                while step > 0 and not _allocate(filler.fileno(), size, step):
                    step //= 2
                if step == 0:
                    break
                size += step

    def free_disk(self) -> None:
        """Take away what ``fill_disk`` put there."""
        self.path(_FILLER).unlink(missing_ok=True)

    # --- for the lab

    def make(self, layers: Iterable[Path], disk: Path) -> None:
        """Its disk, keys and identity, unless they are there."""
        if (self.directory / "machine-id").exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        made_from = {"layers": [str(layer) for layer in layers], "disk": str(disk)}
        self._made_from.write_text(json.dumps(made_from))
        self._copy_disk()
        make_ssh_key(self.directory / "ssh_host_key", f"root@{self.name}")
        # Last: with it, the host is made.
        (self.directory / "machine-id").write_text(secrets.token_hex(16) + "\n")

    @property
    def public_key(self) -> str:
        """Of its sshd: algorithm and key."""
        words = (self.directory / "ssh_host_key.pub").read_text().split()
        return " ".join(words[:2])

    def boot(self, changes: Changes, at: Process, binds: Iterable[Path] = ()) -> None:
        """Give it power and a cable to the switch ``at``, unless it has them."""
        state = changes.host(self.name)
        if state.process.is_alive:
            return
        self._power_off(state, changes, at)  # what a crash or an end from within has left
        self._cgroup.make()
        configuration = self._write_configuration(binds)
        boot = [*_PYTHON, str(_HERE / "boot.py"), str(configuration)]
        unshare = ["unshare", *_NAMESPACES, "--fork", "--propagation", "private", "--"]
        command = ["setsid", "--fork", *unshare, *boot]
        with (
            (self.directory / "boot.log").open("w") as log,
            subprocess.Popen(
                in_group(self._cgroup, command),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            ) as booting,
        ):  # fmt: skip
            assert booting.stdin is not None
            assert booting.stdout is not None
            said = booting.stdout.readline()
            if not said:
                raise LabError(f"{self.name} does not boot:\n{self._boot_log()}")
            first = Process.of(int(said))
            state = replace(state, pid=first.pid, started=first.started)
            changes.save(state)
            network.plug_in(at, self.plan, first)
            self._lay_wire(at, state)
            network.partition(at, changes.hosts())
            booting.stdin.write("go\n")

    def wait_until_ready(self) -> None:
        """Until sshd listens, and libvirtd where it is prepared.

        :raises LabError: it did not in a minute, or the host has gone down.
        """

        def ready() -> bool:
            if not self.is_on:
                raise LabError(f"{self.name} went down at once:\n{self._boot_log()}")
            prepared = self.plan.flavour is Flavour.PREPARED
            return self._listens(22) and (
                not prepared or self.path("/run/libvirt/libvirt-sock").is_socket()
            )

        wait_until(f"{self.name} is ready", ready, _BOOT_SECONDS)

    # --- inside

    @property
    def _cgroup(self) -> ControlGroup:
        return self.site.group(self.name)

    @property
    def _wire_group(self) -> ControlGroup:
        return self.site.group(f"wire-{self.name}")

    @property
    def _made_from(self) -> Path:
        return self.directory / "made-from.json"

    def _copy_disk(self) -> None:
        disk = json.loads(self._made_from.read_text())["disk"]
        (self.directory / "installed").unlink(missing_ok=True)
        image = self.directory / "disk.img"
        image.unlink(missing_ok=True)
        checked(["cp", "--sparse=always", "--reflink=auto", disk, str(image)])

    def _running(self) -> Process:
        first = self.state.process
        if not first.is_alive:
            raise LabError(f"host {self.name} has no power")
        return first

    def _power_off(self, state: HostState, changes: Changes, at: Process | None) -> None:
        if at is not None:
            network.unplug(at, self.name)
        self._stop_wire()
        self._cgroup.kill()
        self._cgroup.remove()
        loops.release(self.directory / "disk.img")
        changes.save(replace(state, pid=0, started=0))

    def _write_configuration(self, binds: Iterable[Path]) -> Path:
        """What ``boot.py`` has to know; it has keys in it."""
        files = plan.host_files(
            self.plan,
            machine_id=self.machine_id,
            public_key=self.site.key.with_suffix(".pub").read_text(),
            host_key=(self.directory / "ssh_host_key").read_text(),
            host_public_key=self.public_key + "\n",
        )
        file = self.directory / "boot.json"
        earlier = json.loads(file.read_text()) if file.exists() else {"binds": []}
        configuration = {
            "name": self.name,
            "machine_id": self.machine_id,
            "layers": json.loads(self._made_from.read_text())["layers"],
            "hierarchies": hierarchies(),
            "files": {path: asdict(each) for path, each in files.items()},
            "passwords": f"{plan.ADMINISTRATOR}:{self.site.password_file.read_text()}",
            "hosts": self.site.hosts_file.read_text(),
            "shared": str(self.site.shared),
            "binds": [str(path) for path in binds] or earlier["binds"],
        }
        file.touch(mode=0o600)
        file.write_text(json.dumps(configuration))
        return file

    def _listens(self, port: int) -> bool:
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{self._running().pid}/net/tcp").read_text().splitlines()[1:]
            ends = [(words[1], words[3]) for words in (line.split() for line in lines)]
            return any(end.endswith(f":{port:04X}") and how == "0A" for end, how in ends)
        return False

    def _boot_log(self) -> str:
        return (self.directory / "boot.log").read_text()

    def _lay_wire(self, at: Process, state: HostState) -> None:
        """The cable as ``state`` says: plain, or by way of a slow wire."""
        network.remove_wire(at, self.name)
        self._stop_wire()
        if not state.process.is_alive or not (state.delay or state.loss):
            return
        near, far = network.wire_ends(self.name)
        wire = [*_PYTHON, str(_HERE / "wire.py"), near, far, str(state.delay), str(state.loss)]
        self.site.start(self._wire_group, in_network(at, wire))
        network.insert_wire(at, self.name)

    def _stop_wire(self) -> None:
        self._wire_group.kill()
        self._wire_group.remove()


def _free_bytes(file: int) -> int:
    found = os.fstatvfs(file)
    return found.f_bavail * found.f_frsize


def _allocate(file: int, offset: int, size: int) -> bool:
    try:
        os.posix_fallocate(file, offset, size)
    except OSError:
        return False
    return True


def finished(
    command: list[str], *, input: str, check: bool, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    :raises LabError: it failed and ``check``; with what it said.
    """
    done = subprocess.run(
        command, input=input, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode != 0:
        said = f"{done.stdout}{done.stderr}".strip()
        raise LabError(f"{' '.join(command[-4:])} failed ({done.returncode}): {said}")
    return done


def make_ssh_key(path: Path, comment: str) -> None:
    """A new pair of keys in ``path`` and ``path.pub``; whole, or not there.

    One that was begun by a process which was killed may still be written: not at this place.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        made = Path(directory) / path.name
        checked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(made)])
        made.with_suffix(".pub").replace(path.with_suffix(".pub"))
        made.replace(path)
