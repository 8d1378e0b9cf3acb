"""One network's dnsmasq process: DHCP, DNS and router advertisements.

It outlives the agent. Names and leases are files that it reads again at SIGHUP; it is restarted
only when its settings change, or when it holds a lease whose address has a new owner.
"""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
from pathlib import Path

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.sync import DesiredNetwork
from virtmgr.drivers.network import dnsmasq_files
from virtmgr.drivers.network.tools import find_tool, run_tool

_USERS = ("dnsmasq", "nobody")
_PATIENCE = 3.0  # seconds for a graceful end


class Dnsmasq:
    """The process and files of one network, in a directory of their own."""

    def __init__(self, directory: Path, resolv_file: Path) -> None:
        self._directory = directory
        self._resolv_file = resolv_file
        self._settings = directory / "dnsmasq.conf"
        self._told = False  # whether this agent knows that its files have been read

    def ensure(self, network: DesiredNetwork) -> None:
        """Let it run with the network's settings and names.

        :raises NetworkError: it does not start; the message has what it said.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o755)  # dnsmasq reads as a user of its own
        settings = dnsmasq_files.settings(
            network, self._directory, _user(self._directory), self._resolv_file
        )
        leases = self._read("leases")
        kept = dnsmasq_files.without_stale(leases, self._read("dhcp-hosts"), network)
        if settings != self._read("dnsmasq.conf") or kept != leases:
            self.stop()
            self._write("dnsmasq.conf", settings)
            self._write("leases", kept)
        renamed = self._write("hosts", dnsmasq_files.hosts(network))
        renamed |= self._write("dhcp-hosts", dnsmasq_files.dhcp_hosts(network))
        if not self._signal(signal.SIGHUP if renamed or not self._told else 0):
            self._start(network)
        self._told = True

    def is_running(self) -> bool:
        return self._signal(0)

    def stop(self) -> None:
        """End it and wait until it has ended; no error if it does not run."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._signal(number, wait=_PATIENCE):
                return
        if self.is_running():
            raise NetworkError(
                f"stopping the dnsmasq of {self._directory.name} failed: SIGKILL did not end it",
                hint="see 'ps' on the host",
            )

    def remove(self) -> None:
        """End it and remove its files."""
        self.stop()
        if self._directory.exists():
            shutil.rmtree(self._directory)

    def _start(self, network: DesiredNetwork) -> None:
        """It returns once it is ready, and goes on in the background."""
        self._outlast_the_dying()
        run_tool(
            [find_tool("dnsmasq"), f"--conf-file={self._settings}"],
            f"starting DHCP and DNS of network {network.name!r} on {network.bridge}",
        )

    def _signal(self, number: int, wait: float = 0.0) -> bool:
        """Send our own process a signal; False if it does not run, or has ended after ``wait``.

        Through a handle, so that a process which has got its number since is never hit.
        """
        try:
            pid = int(self._read("dnsmasq.pid"))
            handle = os.pidfd_open(pid)
        except (ValueError, ProcessLookupError):
            return False
        try:
            if not self._is_ours(pid):
                return False
            signal.pidfd_send_signal(handle, number)
            return not wait or not select.select([handle], [], [], wait)[0]
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)

    def _outlast_the_dying(self) -> None:
        """A process that was killed has no command line any more, but its sockets yet."""
        try:
            pid = int(self._read("dnsmasq.pid"))
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                alive = bool(command.read())
            handle = os.pidfd_open(pid)
        except (ValueError, FileNotFoundError, ProcessLookupError):
            return
        try:
            if not alive:
                select.select([handle], [], [], _PATIENCE)
        finally:
            os.close(handle)

    def _is_ours(self, pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return f"--conf-file={self._settings}".encode() in arguments

    def _read(self, name: str) -> str:
        try:
            return (self._directory / name).read_text()
        except FileNotFoundError:
            return ""

    def _write(self, name: str, text: str) -> bool:
        """Replace the file if it differs; whether it did."""
        path = self._directory / name
        if path.exists() and path.read_text() == text:
            return False
        temporary = self._directory / f"{name}.new"
        temporary.write_text(text)
        temporary.chmod(0o644)
        temporary.replace(path)
        return True


def _user(directory: Path) -> str:
    """An unprivileged user that can read the files again; root where a parent keeps others out."""
    if any(not parent.stat().st_mode & 0o001 for parent in (directory, *directory.parents)):
        return "root"
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _USERS if name in known), "root")
