"""The processes of ``virtmgr serve`` are forks of one that has loaded what they have in common.

So most of what they import is in memory once (docs/adr/0026). Web processes put gevent's sockets,
locks and threads in the place of Python's after the fork: ``adopt_gevent`` does it for what was
loaded before.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module, reload
from typing import Final, NoReturn

from virtmgr.bootstrap.processes import die_with_parent, environment, leave, run_to_end
from virtmgr.config.settings import ServerSettings

COMMON: Final = (
    "cryptography.x509",
    "gunicorn.workers.ggevent",
    "numpy",
    "pydantic",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "virtmgr.api.agent",
    "virtmgr.api.app",
    "virtmgr.api.dialling",
    "virtmgr.bootstrap.control_plane",
    "virtmgr.console.app",
    "virtmgr.services.container",
    "virtmgr.store.unit_of_work",
)
"""Modules that most processes need, but for those that derive classes of what gevent replaces, as
``live_context`` does."""

_CHANGED: Final = (  # by gevent.monkey.patch_all; each thing stands for its last place here
    *("ssl", "os", "subprocess", "queue", "select", "signal"),
    *("socket", "threading", "_thread", "time"),
)
_AT_HOME: Final = {*_CHANGED, "posix", "_queue", "_signal", "_socket", "_ssl"}
Taken = tuple[str, str, str, str]
"""A module, a name in it, and the module and name that it was taken from."""
_taken: list[Taken] = []
_M_ARENA_MAX: Final = -8  # mallopt(3)
_ARENAS: Final = 2


def load_common(database: str) -> None:
    """Load what the processes share, and let the collector of garbage leave it alone.

    Call it before any thread is started, which a fork would lose.

    :param database: its URL.
    """
    # gunicorn would load it, and loading it writes over this process's arguments: it is for forks.
    sys.modules["setproctitle"] = None  # type: ignore[assignment]
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start threads when it loads
    # glibc would keep one heap for each of many threads; the variable is read before a fork only.
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    for module in COMMON:
        import_module(module)
    if database.startswith("postgresql"):
        import_module("virtmgr.store.postgresql")
    del sys.modules["setproctitle"]
    import_module("sqlalchemy.orm").configure_mappers()
    _taken.extend(_names_taken())
    gc.collect()
    gc.freeze()  # a look at an object writes to it, and its page would be copied


def names_taken() -> Sequence[Taken]:
    """What loaded modules have taken from those that gevent may change.

    Before the fork it was looked for once: a look at an object writes to it, and copies its page.
    """
    return _taken or list(_names_taken())


def adopt_gevent(taken: Sequence[Taken]) -> None:
    """Give modules that took what gevent has replaced into names of their own gevent's instead.

    To be called once ``gevent.monkey`` has done so in Python's own modules. psycopg decides when it
    is loaded whether it waits as gevent wants it.

    :param taken: what ``names_taken`` said before that.
    """
    for module, name, origin, original in taken:
        setattr(sys.modules[module], name, getattr(sys.modules[origin], original))
    if "psycopg.waiting" in sys.modules:
        reload(sys.modules["psycopg.waiting"])


def _names_taken() -> Iterator[Taken]:
    origins = {
        id(value): (origin, name)
        for origin in _CHANGED
        for name, value in vars(import_module(origin)).items()
        if callable(value) and getattr(value, "__module__", None) in _AT_HOME
    }
    know_gevent = sys.stdlib_module_names | {"gevent"}
    for module, loaded in list(sys.modules.items()):
        if loaded is None or module.split(".")[0] in know_gevent:
            continue
        for name, value in vars(loaded).items():
            if id(value) in origins:
                yield module, name, *origins[id(value)]


def fork(module: str, settings: ServerSettings) -> int:
    """Run ``serve(settings)`` of a module in a process of its own; its process id.

    It is called in a single thread. The process has the settings as variables too, for its own
    children, and ends at once when this one does.
    """
    parent = os.getpid()
    process = os.fork()
    if process == 0:
        _run(module, settings, parent)
    return process


def _run(module: str, settings: ServerSettings, parent: int) -> NoReturn:
    try:
        die_with_parent(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _read_nothing()
        _call_it(module)
        os.environ.update(environment(settings))
        run_to_end(import_module(module).serve, settings)
    except Exception:  # noqa: BLE001  this is where the process ends
        traceback.print_exc(file=sys.stderr)
    finally:
        leave(1)


def _call_it(module: str) -> None:
    """Name this process, in place of its parent's command line.

    To be called before variables are changed: setproctitle finds the arguments by them.
    """
    os.environ["SPT_NOENV"] = "1"  # the variables are not written over
    import_module("setproctitle").setproctitle(module)


def _read_nothing() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
