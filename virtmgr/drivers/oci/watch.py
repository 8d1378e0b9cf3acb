"""Learns of the end of containers without polling, through a pidfd of each."""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Thread

import structlog

from virtmgr.drivers.oci import processes

_log = structlog.get_logger(__name__)


class Watcher:
    """Calls ``ended`` with a workload's id, from worker threads, when its container ends."""

    def __init__(self, ended: Callable[[str], None], *, workers: int = 4) -> None:
        self._ended = ended
        self._pool = ThreadPoolExecutor(workers, "oci-ended")
        self._selector = selectors.DefaultSelector()
        self._lock = Lock()
        self._watched: dict[int, str] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread = Thread(target=self._run, name="oci-watcher", daemon=True)
        self._thread.start()

    def watch(self, workload_id: str, pid: int, ticks: int) -> None:
        """Watch a container's first process; one that is gone already counts as ended now."""
        fd = processes.open_pidfd(pid, ticks)
        if fd is None:
            self._pool.submit(self._tell, workload_id)
            return
        with self._lock:
            self._watched[fd] = workload_id
        self._selector.register(fd, selectors.EVENT_READ)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                fd = key.fd
                if fd == self._wake_read:
                    if b"\1" in os.read(fd, 4096):
                        return
                    continue
                self._selector.unregister(fd)
                os.close(fd)
                with self._lock:
                    workload_id = self._watched.pop(fd)
                self._pool.submit(self._tell, workload_id)

    def _tell(self, workload_id: str) -> None:
        try:
            self._ended(workload_id)
        except Exception:  # noqa: BLE001 - logged whole
            # Nobody waits for this thread; the next verb on the workload meets the cause again.
            _log.exception("cannot settle the end of a container", workload=workload_id)

    def close(self) -> None:
        """Stop watching."""
        os.write(self._wake_write, b"\1")
        self._thread.join()
        self._pool.shutdown()
        for fd in self._watched:
            os.close(fd)
        self._watched.clear()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
