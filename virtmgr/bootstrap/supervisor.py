"""``virtmgr serve``: starts the control plane's processes and starts them again if they end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import partial

import structlog

from virtmgr.bootstrap import logs
from virtmgr.bootstrap.forks import fork, load_common
from virtmgr.bootstrap.listeners import check_free
from virtmgr.bootstrap.processes import apart
from virtmgr.config.settings import ServerSettings

MODULES = (
    "virtmgr.bootstrap.web",  # REST API and agents' API: gunicorn with gevent
    "virtmgr.bootstrap.hub",  # streams: asyncio
    "virtmgr.bootstrap.worker",  # imports, leases, cleaning up: threads
)
_STEADY = 10.0  # seconds; a process that ran so long is started again at once
_DELAY_LEAST = 0.5
_DELAY_MOST = 30.0
_STOP_SECONDS = 15.0
_LOOK = 5.0  # seconds; it is told when a process ends
_STOP = (signal.SIGTERM, signal.SIGINT)
_NEWS = (*_STOP, signal.SIGCHLD)

_log = structlog.get_logger()


@dataclass
class _Kept:
    """A process that is to run."""

    module: str
    pid: int | None = None
    started: float = 0.0
    delay: float = 0.0  # seconds from its last end to its next start
    due: float = 0.0  # when it is to be started


def supervise(settings: ServerSettings) -> None:
    """Run until SIGTERM or SIGINT; then stop every process and wait for it.

    All of it is one thread, since it forks.

    :raises Unavailable: the database is not ready, or an address cannot be listened on.
    """
    logs.configure("serve")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some starters do, no end is told
    apart(partial(_prepare, settings))
    for endpoint in (settings.listen, settings.agent_listen, settings.stream_listen):
        check_free(endpoint)
    load_common(settings.database)
    signal.pthread_sigmask(signal.SIG_BLOCK, _NEWS)
    kept = [_Kept(module) for module in MODULES]
    news = None
    while news not in _STOP:
        for process in kept:
            _keep(process, settings)
        next_start = min((each.due for each in kept if each.pid is None), default=float("inf"))
        news = _wait(min(_LOOK, next_start - time.monotonic()))
    _end([process.pid for process in kept if process.pid is not None])


def restart_delay(lasted: float, delay: float) -> float:
    """Seconds until a process that ended is started again.

    :param lasted: seconds that it ran.
    :param delay: what this was the last time.
    """
    return 0.0 if lasted > _STEADY else min(_DELAY_MOST, max(_DELAY_LEAST, 2 * delay))


def _prepare(settings: ServerSettings) -> None:
    """What the processes need before they start. It loads much that is not needed again here."""
    from virtmgr.bootstrap.control_plane import check_database, server_certificate
    from virtmgr.enrollment.pki import check_given

    check_database(settings)
    server_certificate(settings)
    if settings.given_certificate is not None:
        check_given(*settings.given_certificate)


def _keep(process: _Kept, settings: ServerSettings) -> None:
    """Start a process that is due, and note the end of one."""
    if process.pid is not None:
        code = _code(process.pid)
        if code is None:
            return
        ended = time.monotonic()
        process.delay = restart_delay(ended - process.started, process.delay)
        process.pid, process.due = None, ended + process.delay
        _log.error("process.ended", module=process.module, code=code, again_in=process.delay)
    if time.monotonic() >= process.due:
        process.started = time.monotonic()
        process.pid = fork(process.module, settings)
        _log.info("process.started", module=process.module, pid=process.pid)


def _code(pid: int) -> int | None:
    """How a process ended: its exit status, or minus the signal; None: it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _wait(seconds: float) -> int | None:
    """The signal that came; None: there was none for so long."""
    news = signal.sigtimedwait(_NEWS, max(0.0, seconds))
    return None if news is None else news.si_signo


def _end(running: list[int]) -> None:
    """Let processes end, and kill those that do not in time."""
    for pid in running:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while running := [pid for pid in running if _code(pid) is None]:
        if time.monotonic() >= deadline:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return
        _wait(deadline - time.monotonic())
