"""The first process of a lab host: starts what the host wants, keeps it running, reaps.

At power-on it runs ``/etc/rc.local``, where that is executable. It runs every executable of
``/etc/virtmgr-lab/services`` in the foreground, and runs it again a second after its end; what is
put there while the host runs is seen within a second. Output goes to
``/var/log/virtmgr-lab/NAME.log``. SIGTERM from the machine shuts the host down in order.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_SERVICES = Path("/etc/virtmgr-lab/services")
_LOGS = Path("/var/log/virtmgr-lab")
_RC_LOCAL = Path("/etc/rc.local")
_PAUSE_SECONDS = 1.0
_END_SECONDS = 10.0


class Init:
    """Knows which service has which process, and when to start it next."""

    def __init__(self) -> None:
        self._processes: dict[int, str] = {}
        self._due: dict[str, float] = {}

    def start(self, program: Path) -> int:
        """Start it in a session of its own, with a log; its process id."""
        log = os.open(_LOGS / f"{program.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ]
            return os.posix_spawn(
                program, [str(program)], dict(os.environ),
                file_actions=actions, setsid=True, setsigmask=(),
            )  # fmt: skip
        except OSError as error:
            os.write(log, f"{program} does not start: {error}\n".encode())
            return 0
        finally:
            os.close(log)

    def keep(self) -> None:
        """Start each service that is wanted, does not run, and is due."""
        running = set(self._processes.values())
        wanted = sorted(_SERVICES.iterdir()) if _SERVICES.is_dir() else []
        now = time.monotonic()
        for program in wanted:
            name = program.name
            if name in running or now < self._due.get(name, 0) or not os.access(program, os.X_OK):
                continue
            self._due[name] = now + _PAUSE_SECONDS
            pid = self.start(program)
            if pid:
                self._processes[pid] = name

    def reap(self) -> bool:
        """Take leave of every process that has ended; whether any are left."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            name = self._processes.pop(pid, None)
            if name is not None:
                self._due[name] = time.monotonic() + _PAUSE_SECONDS

    def shut_down(self) -> None:
        """Ask every process to end; the kernel kills the rest when this one has ended."""
        os.kill(-1, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while self.reap() and time.monotonic() < deadline:
            time.sleep(0.02)


def main() -> None:
    signals = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
    # A first process gets only those signals that it has a handler for, blocked or not.
    for number in signals:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    _LOGS.mkdir(parents=True, exist_ok=True)
    init = Init()
    if os.access(_RC_LOCAL, os.X_OK):
        init.start(_RC_LOCAL)
    while True:
        init.keep()
        caught = signal.sigtimedwait(signals, _PAUSE_SECONDS)
        init.reap()
        if caught is not None and caught.si_signo != signal.SIGCHLD:
            init.shut_down()
            return


if __name__ == "__main__":
    main()
