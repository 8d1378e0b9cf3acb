"""Workloads that are imaginary but for what is seen of them: real shells, and QEMU's display."""

from __future__ import annotations

import os
import socket
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from tests.guests import rescue
from virtmgr.drivers.fake.driver import FakeDriver
from virtmgr.drivers.fake.world import FakeWorld
from virtmgr.drivers.oci.exec import TerminalFile
from virtmgr.ports.driver import ExecRequest, ExecSession


class Shell:
    """A command of this machine on a terminal of its own."""

    def __init__(self, request: ExecRequest) -> None:
        self._terminal, slave = os.openpty()
        self.resize(request.rows, request.columns)
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *request.command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={"PATH": os.defpath, "PS1": "$ ", **request.env},
            cwd="/",
        )
        os.close(slave)
        self._file = TerminalFile(self._terminal)
        terminal = cast(BinaryIO, self._file)
        self.stdin: BinaryIO | None = terminal
        self.stdout: BinaryIO = terminal
        self.stderr: BinaryIO | None = None

    def resize(self, rows: int, columns: int) -> None:
        termios.tcsetwinsize(self._terminal, (rows, columns))

    def wait(self) -> int:
        return self._process.wait()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()

    def __del__(self) -> None:
        self.kill()
        self._process.wait()
        self._file.close()


@dataclass(frozen=True)
class Machine:
    """A QEMU at GRUB's prompt, which hears its keyboard and speaks on its serial port as well."""

    directory: Path

    @property
    def display(self) -> Path:
        return self.directory / "vnc"

    def said(self) -> str:
        return (self.directory / "serial").read_text(errors="replace")


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """It runs until the block ends."""
    directory.mkdir()
    image = rescue.build(directory / "grub.iso", terminals="console serial")
    found = Machine(directory)
    arguments = ("-display", "none", "-vnc", f"unix:{found.display}", "-cdrom", str(image))
    serial = ("-serial", f"file:{directory / 'serial'}", "-m", "64", "-nodefaults", "-vga", "std")
    with subprocess.Popen(
        ["nice", "qemu-system-x86_64", "-accel", "tcg", *arguments, *serial]
    ) as process:
        try:
            yield found
        finally:
            process.kill()


class ScreenDriver(FakeDriver):
    """The fake driver whose shells are real, and whose displays are all those of one machine."""

    def __init__(self, world: FakeWorld, shown: Machine) -> None:
        super().__init__(world)
        self._shown = shown

    def exec(self, workload_id: str, request: ExecRequest) -> ExecSession:
        self._live("run a command in", workload_id)
        return Shell(request)

    def display(self, workload_id: str) -> socket.socket:
        self._live("open the display of", workload_id)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._shown.display))
        return connection
