"""A process of its own for one run of a playbook, below the control plane's worker.

    python -m virtmgr.enrollment.player DIRECTORY

It reads one line of JSON from standard input (what to run, and the credentials: nobody else sees
a pipe), and writes one line of JSON for each event to standard output. When its standard input
ends, whoever started it is gone or wants no more: then it ends the run. Ansible's processes make
sessions of their own and ignore that a terminal hangs up, so this process adopts all that descends
from it (PR_SET_CHILD_SUBREAPER, prctl(2)) and leaves none of them behind; nor DIRECTORY, which is
private and has what Ansible and ssh want in files.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from virtmgr.enrollment.collection import install_collection

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SECONDS = 3600  # a run takes minutes; nothing lasts for ever
_EVENTS = {
    "playbook_on_task_start",
    "runner_on_ok",
    "runner_retry",
    "runner_on_failed",
    "runner_on_unreachable",
}


def main() -> None:
    directory = Path(sys.argv[1])
    _adopt_descendants()
    gone = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: gone.set())
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_watch_input, args=(gone,), daemon=True).start()
    try:
        status = _play(directory, request, gone)
        _tell({"status": status})
    finally:
        _end_descendants()
        shutil.rmtree(directory, ignore_errors=True)


def _play(directory: Path, request: dict[str, Any], gone: threading.Event) -> str:
    """Run it; successful, failed, canceled or timeout."""
    import ansible_runner  # a second to load, and only here

    for name, content in request["files"].items():
        _write_private(directory / name, content)
    collections = directory / "collections"
    install_collection(collections)
    runner = ansible_runner.run(
        private_data_dir=str(directory),
        playbook=request["playbook"],
        inventory=request["inventory"],
        cmdline=" ".join(request["options"]) or None,
        envvars={**request["environment"], "ANSIBLE_COLLECTIONS_PATH": str(collections)},
        settings={"job_timeout": _SECONDS, "pexpect_timeout": 1},
        quiet=True,
        event_handler=_handle,
        cancel_callback=gone.is_set,
    )
    if runner.status == "failed" and not runner.stats:
        _tell({"output": _last_output(runner)})
    return str(runner.status)


def _handle(event: dict[str, Any]) -> bool:
    """Pass an event on; False: it need not be kept in a file."""
    if event.get("event") in _EVENTS:
        _tell({"event": event["event"], "event_data": event.get("event_data")})
    return False


def _tell(document: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # nobody listens any more: the run is about to be ended
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()


def _last_output(runner: Any) -> str:
    """What Ansible printed before it began, such as that a playbook is wrong."""
    with suppress(OSError, AttributeError):
        return str(runner.stdout.read())[-2000:]
    return ""


def _write_private(path: Path, content: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)


def _watch_input(gone: threading.Event) -> None:
    # Not by sys.stdin: a thread that waits in it keeps the interpreter from ending in order.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    gone.set()


def _adopt_descendants() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _end_descendants() -> None:
    """Kill children until there are none: those of a killed child become ours."""
    while children := _children():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    own, found = os.getpid(), []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = file.read_text().rpartition(")")[2].split()[1]  # proc(5)
            if int(parent) == own:
                found.append(int(file.parent.name))
    return found


if __name__ == "__main__":
    main()
