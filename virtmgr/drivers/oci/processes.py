"""Processes told apart from later ones with the same pid, and waited for through pidfds."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks after boot; None if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int, ticks: int) -> bool:
    """Whether the very process that had ``pid`` and started at ``ticks`` still runs."""
    return pid > 0 and start_ticks(pid) == ticks


def open_pidfd(pid: int, ticks: int) -> int | None:
    """A pidfd of that very process; None if it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if is_alive(pid, ticks):
        return fd
    os.close(fd)
    return None


def wait_gone(pid: int, ticks: int, timeout: float) -> bool:
    """Wait until the process has ended; False if it has not within ``timeout`` seconds."""
    fd = open_pidfd(pid, ticks)
    if fd is None:
        return True
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(max(0, int(timeout * 1000))))
    finally:
        os.close(fd)


def program(pid: int) -> str | None:
    """What a process runs; None: it is gone."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except FileNotFoundError:
        return None


def wait_for_other_program(pid: int, ticks: int, before: str | None, timeout: float) -> None:
    """Wait until a process runs something else than ``before`` (execve(2)), or has ended."""
    deadline = time.monotonic() + timeout
    while is_alive(pid, ticks) and program(pid) == before and time.monotonic() < deadline:
        time.sleep(0.0005)


def send_signal(pid: int, ticks: int, number: int) -> None:
    """Send a signal to that very process; no error if it is gone."""
    fd = open_pidfd(pid, ticks)
    if fd is None:
        return
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass  # it ended in between, which is what signals are for here
    finally:
        os.close(fd)
