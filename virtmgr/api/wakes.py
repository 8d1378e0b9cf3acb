"""The long poll in which a host waits to be woken, and renews its lease meanwhile.

Every host waits in one nearly all the time, and of a large fleet hundreds end each second. So it is
answered below Flask, which would cost as much again as all the rest of it and would keep what it
makes for a request for as long as the host waits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from virtmgr.api import problems
from virtmgr.api.peers import host_certificate
from virtmgr.domain.errors import VirtmgrError
from virtmgr.ports.unit_of_work import Heartbeat
from virtmgr.services import enrolment
from virtmgr.services.container import Services
from virtmgr.services.heartbeats import Heartbeats
from virtmgr.services.signal import Signal
from virtmgr.services.wake import HostWake

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]

MEDIA_TYPE: Final = "application/json"
_USUAL_WAIT: Final = 25.0  # seconds
_LONGEST_WAIT: Final = 60.0


@dataclass(slots=True)
class Waiting:
    """The answer to a poll that has to wait. Who iterates it, as WSGI has it, waits for it.

    A server may also watch ``signal`` itself, for at most ``timeout`` seconds beyond ``seen``, and
    then send ``content``.
    """

    signal: Signal
    seen: int
    timeout: float
    start_response: StartResponse | None
    known: dict[str, object]  # of the answer, beforehand

    @property
    def content(self) -> bytes:
        """The answer, as it is now."""
        return _content(woken=self.signal.count > self.seen, known=self.known)

    def __iter__(self) -> Iterator[bytes]:
        assert self.start_response is not None  # else a server has promised not to wait here
        self.signal.wait(self.seen, self.timeout)
        yield from _respond(self.content, self.start_response)


class Wakes:
    """Answers ``GET path?revision=R&timeout=SECONDS[&renew=1]`` with JSON; all else goes on.

    Of the answer, ``wake`` says whether to sync now: there is something newer than revision R, or
    there may be. ``renewed`` and ``pause`` are there where the lease was renewed.
    """

    def __init__(self, services: Services, wake: HostWake, path: str, otherwise: Wsgi) -> None:
        self._services = services
        self._heartbeats = Heartbeats(services)
        self._wake = wake
        self._path = path
        self._otherwise = otherwise

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != self._path or environ["REQUEST_METHOD"] != "GET":
            return self._otherwise(environ, start_response)
        try:
            return self._answer(environ, start_response)
        except VirtmgrError as error:
            return problems.respond(error)(environ, start_response)
        except Exception as error:  # noqa: BLE001  the last resort, as Flask's: logged, and told
            return problems.respond_to_defect(error)(environ, start_response)

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        host_id, serial = host_certificate(environ)
        asked = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        timeout = min(_number(asked.get("timeout"), _USUAL_WAIT), _LONGEST_WAIT)
        known = int(_number(asked.get("revision"), 0.0))
        signal = self._wake.signal(host_id)
        seen = signal.count
        if not _number(asked.get("renew"), 0.0):
            revision = enrolment.authenticate(self._services, host_id, serial).revision
            answer: dict[str, object] = {}
        else:
            beat = self._heartbeats.beat(Heartbeat(host_id, serial))
            if beat is None:  # the sync that is due then says why
                return _respond(_content(woken=True, known={}), start_response)
            revision = beat.revision
            answer = {"renewed": True, "pause": beat.pause}
        if revision > known:
            return _respond(_content(woken=True, known=answer), start_response)
        return Waiting(signal, seen, timeout, start_response, answer)


def _content(*, woken: bool, known: dict[str, object]) -> bytes:
    return json.dumps({"wake": woken, **known}).encode()


def _respond(content: bytes, start_response: StartResponse) -> tuple[bytes]:
    start_response(
        f"{HTTPStatus.OK.value} {HTTPStatus.OK.phrase}",
        [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(content)))],
    )
    return (content,)


def _number(text: str | None, default: float) -> float:
    """What is no finite number is taken as if it were not there."""
    try:
        number = default if text is None else float(text)
    except ValueError:
        return default
    return number if math.isfinite(number) else default
