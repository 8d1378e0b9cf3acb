"""Files in and out of a VM as tar streams, packed and unpacked by the guest's own tar.

GNU's and busybox' tar both do. The whole archive passes through a file in the guest's /tmp.
"""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from virtmgr.domain.errors import DriverError, InvalidRequest, NotFound
from virtmgr.domain.workload import GIB
from virtmgr.drivers.libvirt import exec
from virtmgr.drivers.libvirt.agent import GuestAgent
from virtmgr.drivers.libvirt.exec import AgentExecSession

_LARGEST = GIB
_CHUNK = 65536
_WORDS = 1000  # bytes of a complaint that are shown
_PACK = '[ -e "$0/$1" ] || [ -L "$0/$1" ] || exit 66; exec tar -c -f - -C "$0" -- "$1"'
_UNPACK = 'mkdir -p "$0" && exec tar -x -p -f - -C "$0"'
_ABSENT = 66


def pull(agent: GuestAgent, path: str) -> Iterator[bytes]:
    """A tar of ``path`` in the guest, named by its last component. Raised as it is read:

    :raises InvalidRequest: it is the root directory.
    :raises NotFound: there is no such path.
    :raises DriverError: no agent answers, or tar fails.
    """
    directory, name = posixpath.split(posixpath.normpath(path))
    if not name:
        raise InvalidRequest(
            "cannot copy the whole file system of a VM", hint="name a directory beneath /"
        )
    session = exec.start(agent, ("sh", "-c", _PACK, directory, name), limit=_LARGEST)
    try:
        complaint = _Complaint(session)
        with session.stdout as stdout:
            while piece := stdout.read(_CHUNK):
                yield piece
        code = session.wait()
        if code == _ABSENT:
            raise NotFound(f"cannot read {path} in the VM: No such file or directory")
        if code != 0:
            raise DriverError(f"cannot read {path} in the VM: {complaint.text()}")
    finally:
        session.kill()


def push(agent: GuestAgent, path: str, tar: BinaryIO) -> None:
    """Unpack ``tar`` in the directory ``path`` in the guest, made if missing.

    :raises DriverError: no agent answers, or tar fails.
    """
    session = exec.start(agent, ("sh", "-c", _UNPACK, path), stdin=True, limit=_LARGEST)
    try:
        complaint = _Complaint(session)
        assert session.stdin is not None
        with session.stdout:
            with suppress(BrokenPipeError), session.stdin as stdin:  # if so, wait() says why
                while piece := tar.read(_CHUNK):
                    stdin.write(piece)
            code = session.wait()
        if code != 0:
            raise DriverError(f"cannot unpack into {path} in the VM: {complaint.text()}")
    finally:
        session.kill()


class _Complaint:
    """What a command says on its standard error, the beginning of it."""

    def __init__(self, session: AgentExecSession) -> None:
        self._said = b""
        self._thread = threading.Thread(
            target=self._read, args=(session.stderr,), name="vm-tar", daemon=True
        )
        self._thread.start()

    def text(self) -> str:
        self._thread.join()
        return self._said.decode(errors="replace").strip() or "its tar failed"

    def _read(self, stderr: BinaryIO) -> None:
        with stderr:
            while piece := stderr.read(_CHUNK):
                self._said += piece[: _WORDS - len(self._said)]
