"""QEMU's agent inside a guest: commands and files there, through a virtio serial port.

The protocol is QEMU's "QEMU Guest Agent Protocol Reference" (qemu-ga-ref(7)). The guest is not
trusted: what it answers is checked, and no single answer is large.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import libvirt_qemu

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.libvirt.errors import attempt

_CHUNK = 256 * 1024  # bytes of a file in one message; libvirt ends the connection above some MiB
_PATIENCE = 20  # seconds for one answer
_SHOWN = 200  # characters of a malformed answer
_POLL_FIRST, _POLL_MOST = 0.02, 0.5  # seconds


class Pace:
    """Waits between looks at something, longer each time; ``hurry`` starts anew."""

    def __init__(self) -> None:
        self.hurry()

    def hurry(self) -> None:
        self._delay = _POLL_FIRST

    def wait(self) -> None:
        time.sleep(self._delay)
        self._delay = min(self._delay * 2, _POLL_MOST)


class GuestAgent:
    """The agent of one running domain. Every call may raise a DriverError:

    ``no_guest_agent`` where none answers, else with the guest's own words.
    """

    def __init__(self, domain: Any, name: str) -> None:
        self._domain = domain
        self._name = name

    def connect(self) -> None:
        """Check that an agent answers."""
        with attempt(f"reach the guest agent of VM {self._name}"):
            self._domain.agentSetResponseTimeout(_PATIENCE)
        self._call("guest-ping")

    def spawn(self, *command: str) -> int:
        """Start a command; its process id in the guest. Its output is lost."""
        started = self._call("guest-exec", path=command[0], arg=list(command[1:]))
        return self._number(started, "pid")

    def exit_code(self, pid: int) -> int | None:
        """How a command ended, asked once; None while it runs, 128 + n after signal n."""
        status = self._call("guest-exec-status", pid=pid)
        if not isinstance(status, dict) or not status.get("exited"):
            return None
        if "signal" in status:
            return 128 + self._number(status, "signal")
        return self._number(status, "exitcode")

    def wait(self, pid: int) -> int:
        """How a command ended that ends soon.

        :raises DriverError: it does not.
        """
        deadline, pace = time.monotonic() + _PATIENCE, Pace()
        while (code := self.exit_code(pid)) is None:
            if time.monotonic() > deadline:
                raise DriverError(f"process {pid} in VM {self._name} does not end")
            pace.wait()
        return code

    def run(self, *command: str) -> int:
        """Run a command that ends soon; its exit code.

        :raises DriverError: it does not end.
        """
        return self.wait(self.spawn(*command))

    def open(self, path: str, mode: str) -> int:
        """A handle of a file in the guest; ``mode`` as fopen(3) has it."""
        handle = self._call("guest-file-open", path=path, mode=mode)
        if not isinstance(handle, int):
            raise self._nonsense(handle)
        return handle

    def read(self, handle: int) -> bytes:
        """What follows in the file, some of it; nothing at its present end."""
        answer = self._call("guest-file-read", handle=handle, count=_CHUNK)
        try:
            return base64.b64decode(answer["buf-b64"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense(answer) from error

    def write(self, handle: int, content: bytes) -> None:
        for start in range(0, len(content), _CHUNK):
            piece = base64.b64encode(content[start : start + _CHUNK]).decode()
            self._call("guest-file-write", **{"handle": handle, "buf-b64": piece})

    def close(self, handle: int) -> None:
        self._call("guest-file-close", handle=handle)

    def _call(self, command: str, **arguments: Any) -> Any:
        request = json.dumps({"execute": command, "arguments": arguments})
        with attempt(f"call {command} in VM {self._name}"):
            answer = libvirt_qemu.qemuAgentCommand(self._domain, request, _PATIENCE, 0)
        try:
            return json.loads(answer)["return"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._nonsense(answer) from error

    def _number(self, answer: Any, key: str) -> int:
        value = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(value, int):
            raise self._nonsense(answer)
        return value

    def _nonsense(self, answer: object) -> DriverError:
        return DriverError(
            f"cannot use the guest agent of VM {self._name}: it answers {str(answer)[:_SHOWN]!r}"
        )
