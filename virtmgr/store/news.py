"""News from process to process over PostgreSQL's LISTEN and NOTIFY.

What is committed by one process is waited for in others: events, operations, hosts' long polls.
News is a hint. It may be lost, as may a connection; whoever waits looks into the database by
itself, only later. After a connection was made anew everything counts as news.
https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from virtmgr.domain.errors import Unavailable, VirtmgrError
from virtmgr.domain.ids import new_id
from virtmgr.store.engine import make_news_engine

_CHANNEL: Final = "virtmgr_news"
_GATHER: Final = 0.01  # seconds in which further news goes into the same notification
_MOST: Final = 90  # ids of each kind in one notification, whose limit is 8000 bytes
_PAUSE: Final = 1.0  # seconds after a lost connection
_LOOK: Final = 2.0  # seconds between looks whether to go on listening
_TOLD_EVERY: Final = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class News:
    """What another process has done: something is committed in any case."""

    done: tuple[str, ...] = ()  # ids of finished operations
    wake: tuple[str, ...] = ()  # ids of hosts that should sync now
    missed: bool = False  # there may have been more: nobody listened for a while


def relay_of(url: str) -> Relay:
    """What tells the other processes of one database."""
    engine = make_news_engine(url)
    return NoRelay() if engine is None else PostgresqlRelay(engine)


class Relay(Protocol):
    """Tells other processes. None of these waits for the database."""

    def committed(self) -> None: ...

    def done(self, ids: Iterable[str]) -> None: ...

    def wake(self, host_id: str) -> None: ...

    def start(self, heard: Callable[[News], None]) -> None:
        """Call ``heard`` with what other processes tell, from a thread of the relay's."""
        ...

    def close(self) -> None: ...


class NoRelay:
    """For SQLite: its one web process hears what matters in itself."""

    def committed(self) -> None:
        """Nobody is told."""

    def done(self, ids: Iterable[str]) -> None:
        """Nobody is told."""

    def wake(self, host_id: str) -> None:
        """Nobody is told."""

    def start(self, heard: Callable[[News], None]) -> None:
        """Nothing is heard."""

    def close(self) -> None:
        """Nothing is open."""


class PostgresqlRelay:
    """One connection that tells and one that listens, each made anew when it is lost."""

    def __init__(self, engine: Engine) -> None:
        """:param engine: without a pool, committing each statement."""
        self._engine = engine
        self._origin = new_id()
        self._changed = threading.Condition()
        self._committed = False
        self._done: dict[str, None] = {}
        self._wake: dict[str, None] = {}
        self._closed = threading.Event()

    def committed(self) -> None:
        with self._changed:
            self._committed = True
            self._changed.notify()

    def done(self, ids: Iterable[str]) -> None:
        with self._changed:
            self._done.update(dict.fromkeys(ids))
            self._committed = True
            self._changed.notify()

    def wake(self, host_id: str) -> None:
        with self._changed:
            self._wake[host_id] = None
            self._committed = True
            self._changed.notify()

    def start(self, heard: Callable[[News], None]) -> None:
        for name, work in (("tell", self._tell), ("listen", lambda: self._listen(heard))):
            threading.Thread(
                target=self._again_and_again, args=(work, name), name=f"news-{name}", daemon=True
            ).start()

    def close(self) -> None:
        """Neither tell nor listen any more, within seconds."""
        self._closed.set()
        with self._changed:
            self._changed.notify()

    def _again_and_again(self, work: Callable[[], None], name: str) -> None:
        lost = 0.0  # when it was, so that a database that is away is not told of each second
        while not self._closed.is_set():
            try:
                work()
            except (VirtmgrError, SQLAlchemyError) as error:
                if time.monotonic() - lost > _TOLD_EVERY:
                    lost = time.monotonic()
                    _log.warning("news.lost", connection=name, error=str(error))
            except Exception:  # noqa: BLE001  the thread's last resort: logged, and tried again
                _log.exception("news.crashed", connection=name)
            self._closed.wait(_PAUSE)

    def _tell(self) -> None:
        with self._engine.connect() as connection:
            while not self._closed.is_set():
                done, wake = self._next()
                payload = json.dumps({"from": self._origin, "done": done, "wake": wake})
                connection.execute(
                    text("SELECT pg_notify(:channel, :payload)"),
                    {"channel": _CHANNEL, "payload": payload},
                )

    def _next(self) -> tuple[list[str], list[str]]:
        with self._changed:
            self._changed.wait_for(lambda: self._committed or self._closed.is_set())
        self._closed.wait(_GATHER)
        with self._changed:
            done, wake = _take(self._done), _take(self._wake)
            self._committed = bool(self._done or self._wake)
        return done, wake

    def _listen(self, heard: Callable[[News], None]) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(f"LISTEN {_CHANNEL}"))
            heard(News(missed=True))
            driver = connection.connection.driver_connection
            while not self._closed.is_set():
                for notification in _notifications(driver):
                    document = json.loads(notification.payload)
                    if document["from"] != self._origin:
                        heard(News(tuple(document["done"]), tuple(document["wake"])))


def _notifications(driver: Any) -> Iterator[Any]:
    """Those of the next seconds.

    :raises Unavailable: the connection is lost.
    """
    import psycopg  # which SQLite does without

    try:
        yield from driver.notifies(timeout=_LOOK)
    except psycopg.Error as error:
        raise Unavailable(f"listen for news: {str(error).strip()}") from error


def _take(ids: dict[str, None]) -> list[str]:
    taken = list(ids)[:_MOST]
    for id in taken:
        del ids[id]
    return taken
