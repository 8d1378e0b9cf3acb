"""The OCI runtime's command line (OCI runtime-spec runtime.md, "Operations")."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.oci import syscalls
from virtmgr.drivers.oci.cgroups import Hierarchies, Layout

_LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\dT[^:]*:\d\d:[^:]*: ")
_SPAWNERS = 8


@dataclass(frozen=True)
class RuntimeVersion:
    name: str
    version: str


class Runtime:
    """Runs the runtime's commands, each seeing only the cgroups that it can handle.

    crun refuses the hybrid of cgroup v1 and v2. There its processes are started from threads
    whose own mount namespace lacks the v2 hierarchy: that costs nothing per command. The driver's
    run directory is a shared mount, so roots mounted later are seen there too.
    """

    def __init__(self, binary: str, root: Path, hierarchies: Hierarchies) -> None:
        self.binary = shutil.which(binary) or binary
        self.root = root
        # runc passes the terminal of a command on only if nobody waits for the command's end; so
        # it gets one of its own, and copies to and fro.
        self.sends_terminals = "runc" not in Path(self.binary).name
        self._hidden = hierarchies.unified if hierarchies.layout is Layout.HYBRID else None
        self._spawners: ThreadPoolExecutor | None = None
        if self._hidden is not None:
            self._spawners = ThreadPoolExecutor(
                _SPAWNERS, "oci-spawner", initializer=self._hide_unified
            )

    def _hide_unified(self) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        syscalls.umount(str(self._hidden), syscalls.MNT_DETACH)

    def spawn(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a command that calls, or is, the runtime."""

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                list(command),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=env,
                pass_fds=pass_fds,
                bufsize=0,
            )

        try:
            return start() if self._spawners is None else self._spawners.submit(start).result()
        except FileNotFoundError as error:
            raise DriverError(
                f"cannot run {command[0]}: it is not installed",
                hint=f"install {Path(command[0]).name} on this host",
            ) from error

    def command(self, verb: str, *arguments: str) -> list[str]:
        return [self.binary, "--root", str(self.root), verb, *arguments]

    def run(self, verb: str, *arguments: str) -> None:
        """Run one command to its end.

        :raises DriverError: it fails, with what it said.
        """
        process = self.spawn(self.command(verb, *arguments), stderr=subprocess.PIPE)
        said = process.communicate()[1].decode("utf-8", "replace")
        if process.returncode != 0:
            raise DriverError(
                f"{Path(self.binary).name} {verb} {' '.join(arguments)} failed: {complaint(said)}"
            )

    def start(self, workload_id: str) -> None:
        self.run("start", workload_id)

    def delete(self, workload_id: str) -> None:
        """End what is left of it, and forget it. No error if the runtime does not know it."""
        if (self.root / workload_id).exists():
            self.run("delete", "--force", workload_id)

    def is_created_only(self, workload_id: str) -> bool:
        """Whether it was created and still waits for ``start`` (crun and runc keep a FIFO)."""
        return (self.root / workload_id / "exec.fifo").exists()

    def version(self) -> RuntimeVersion:
        """What the binary says of itself.

        :raises DriverError: it cannot be run.
        """
        process = self.spawn([self.binary, "--version"], stdout=subprocess.PIPE)
        said = process.communicate()[0].decode("utf-8", "replace")
        found = re.search(r"(\S+) version (\S+)", said)
        if process.returncode != 0 or found is None:
            raise DriverError(f"{self.binary} --version failed: {said.strip()}")
        return RuntimeVersion(found[1], found[2])

    def close(self) -> None:
        if self._spawners is not None:
            self._spawners.shutdown()


def complaint(said: str) -> str:
    """What a runtime complained about, without its log prefixes, in one line."""
    lines = [_LOG_PREFIX.sub("", line).strip() for line in said.splitlines()]
    return "; ".join(line for line in lines if line)[-2000:] or "it said nothing"
