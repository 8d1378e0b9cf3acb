"""Child processes that never outlive their parent, and their environment."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from typing import NoReturn

from virtmgr.config.settings import ServerSettings

_PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when its parent ends, however that ends.

    A parent that ends in order ends its children first; after another end they must not linger.

    :param parent: its process id, which the child cannot ask for once it has ended; None: that of
        the parent at this moment.
    """
    if parent is None:
        parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        sys.exit("the parent process is gone already")


def allow_many_connections() -> None:
    """As many open files as this process may have; the usual 1024 are fewer than its limits."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def collect_rarely() -> None:
    """Look for cycles of objects rarely, and never among those that there are by now: what a
    request makes are tens of thousands, and counting references frees them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def apart(work: Callable[[], None]) -> None:
    """Do ``work`` in a process of its own, so that what it loads does not stay in this one.

    What it raises is raised here. Call it before any thread is started, which a fork would lose.
    Without ``die_with_parent`` the process would wait for work for ever if this one were killed.
    """
    with ProcessPoolExecutor(
        1,
        mp_context=get_context("fork"),
        initializer=die_with_parent,
        initargs=(os.getpid(),),
    ) as process:
        process.submit(work).result()


def leave(code: int = 0) -> NoReturn:
    """End this process now. Taking an interpreter with all its modules down takes a second more.

    To be called when everything is closed: nothing else is flushed or finalised.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever read it is gone
            stream.flush()
    os._exit(code)


def run_to_end(serve: Callable[[ServerSettings], None], settings: ServerSettings) -> NoReturn:
    """Serve in this process until that ends, and leave with its code."""
    try:
        serve(settings)
    except SystemExit as end:  # how gunicorn ends
        leave(end.code if isinstance(end.code, int) else 1)
    leave()


def run_alone(serve: Callable[[ServerSettings], None]) -> NoReturn:
    """Serve as a program of its own, with settings from the environment."""
    die_with_parent()
    run_to_end(serve, ServerSettings.load({}, os.environ))


def environment(settings: ServerSettings) -> dict[str, str]:
    """The settings as variables: the way to children that no other user can read."""
    places = {
        "VIRTMGR_BUILD_CACHE": settings.build_cache,
        "VIRTMGR_SHARED_DIRECTORY": settings.shared_directory,
        "VIRTMGR_WHEELHOUSE": settings.wheelhouse,
        "VIRTMGR_CERTIFICATE": settings.certificate,
        "VIRTMGR_KEY": settings.key,
    }
    return {
        "MALLOC_ARENA_MAX": "2",  # glibc would keep one for each of many threads
        **os.environ,
        **{name: str(place) for name, place in places.items() if place},
        "VIRTMGR_DATA_DIRECTORY": str(settings.data_directory),
        "VIRTMGR_RUN_DIRECTORY": str(settings.run_directory),
        "VIRTMGR_DATABASE": settings.database,
        "VIRTMGR_LISTEN": str(settings.listen),
        "VIRTMGR_AGENT_LISTEN": str(settings.agent_listen),
        "VIRTMGR_STREAM_LISTEN": str(settings.stream_listen),
        "VIRTMGR_ADDRESS": settings.address,
        "VIRTMGR_CONTROL_PLANE_ADDRESSES": ",".join(settings.control_plane_addresses),
        "VIRTMGR_REGISTRY_MIRRORS": settings.registry_mirrors,
        "VIRTMGR_WEB_PROCESSES": str(settings.web_processes),
    }
