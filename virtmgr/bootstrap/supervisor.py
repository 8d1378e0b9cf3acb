"""``virtmgr serve``: starts the control plane's processes and starts them again if they end."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from functools import partial

import structlog

from virtmgr.bootstrap import logs
from virtmgr.bootstrap.listeners import check_free
from virtmgr.bootstrap.processes import apart, spawn
from virtmgr.config.settings import ServerSettings

MODULES = (
    "virtmgr.bootstrap.web",  # REST API and agents' API: gunicorn with gevent
    "virtmgr.bootstrap.hub",  # streams: asyncio
    "virtmgr.bootstrap.worker",  # imports, leases, cleaning up: threads
)
_STEADY = 10.0  # seconds; a process that ran so long is started again at once
_DELAY_MOST = 30.0
_STOP_SECONDS = 15.0
_LOOK = 0.2  # seconds between looks at signals and processes

_log = structlog.get_logger()


def supervise(settings: ServerSettings) -> None:
    """Run until SIGTERM or SIGINT; then stop every process and wait for it.

    :raises Unavailable: the database is not ready, or an address cannot be listened on.
    """
    logs.configure("serve")
    apart(partial(_prepare, settings))
    for endpoint in (settings.listen, settings.agent_listen, settings.stream_listen):
        check_free(endpoint)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    keepers = [
        threading.Thread(target=_keep, args=(module, settings, stop), name=module)
        for module in MODULES
    ]
    for keeper in keepers:
        keeper.start()
    while not stop.wait(_LOOK):  # short: a signal that another thread got does not end a wait
        pass
    for keeper in keepers:
        keeper.join()


def _prepare(settings: ServerSettings) -> None:
    """What the processes need before they start. It loads much that is not needed again here."""
    from virtmgr.bootstrap.control_plane import check_database, server_certificate
    from virtmgr.enrollment.pki import check_given

    check_database(settings)
    server_certificate(settings)
    if settings.given_certificate is not None:
        check_given(*settings.given_certificate)


def _keep(module: str, settings: ServerSettings, stop: threading.Event) -> None:
    delay = 0.0
    while not stop.wait(delay):
        started = time.monotonic()
        process = spawn(module, settings)
        _log.info("process.started", module=module, pid=process.pid)
        while process.poll() is None and not stop.wait(_LOOK):
            pass
        if stop.is_set():
            _end(process)
            return
        lasted = time.monotonic() - started
        delay = 0.0 if lasted > _STEADY else min(_DELAY_MOST, max(0.5, 2 * delay))
        _log.error("process.ended", module=module, code=process.returncode, again_in=delay)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
