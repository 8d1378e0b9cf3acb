"""gunicorn's gevent worker with bounds on what one client may hold, and for how long.

gunicorn itself bounds a request's first line, its headers, and the time until its head is there
(keep-alive). What is missing for clients that are slow on purpose stands here: time for the TLS
handshake, for each piece of a body and of an answer, and connections of one address. docs/api.md
has all limits in one table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import gevent
import structlog
from gevent import ssl
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.ggevent import GeventWorker
from werkzeug.exceptions import BadRequest, RequestTimeout

from virtmgr.api.problems import MEDIA_TYPE, http_problem
from virtmgr.bootstrap.processes import collect_rarely

CONNECTIONS: Final = 2000  # of the operators' port
AGENT_CONNECTIONS: Final = 20_000  # of the agents' port: each host keeps one, and has two at times
CONNECTIONS_PER_ADDRESS: Final = 1000  # so that no one client takes them all
HANDSHAKE_SECONDS: Final = 10
HEAD_SECONDS: Final = 75  # for a request's head, and between requests
AGENT_HEAD_SECONDS: Final = 15  # the same on the agents' port: their client keeps none for longer
BODY_SECONDS: Final = 30  # for each piece of BODY_PIECE
BODY_PIECE: Final = 64 * 1024
SEND_SECONDS: Final = 60  # for each piece of an answer

_STATUS: Final = (
    (LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (ParseException, HTTPStatus.BAD_REQUEST),
)

# RFC 3986, 3.2.2 and 3.2.3; without an authority it is empty (RFC 9112, 3.2).
_HOST: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]*)?", re.ASCII
)

log = structlog.get_logger(__name__)
_connections: Counter[str] = Counter()


def refusal(status: HTTPStatus, detail: str, *fields: str) -> bytes:
    """A whole answer with a problem, after which the connection ends.

    :param fields: further ones of its head: ``Name: value``.
    """
    document = http_problem(status, detail).encode()
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Connection: close",
        *fields,
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(document)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + document


class BoundedSocket(ssl.SSLSocket):  # type: ignore[misc]
    """A connection that is given up when its client takes too long, or has too many of them.

    ``kept`` says that whoever served it is not to close it: it is served further elsewhere.
    """

    kept = False
    _counted: str | None = None
    _awaits_head = False
    _head = b""

    def do_handshake(self) -> None:
        """Greet the client. What fails here is the client's doing and worth one line, no trace."""
        address = str(self.getpeername()[0])
        reason = ""
        if _connections[address] >= CONNECTIONS_PER_ADDRESS:
            reason = f"it has {CONNECTIONS_PER_ADDRESS} connections already"
        self._counted = address
        _connections[address] += 1
        if not reason:
            try:
                with gevent.Timeout(HANDSHAKE_SECONDS, TimeoutError("no TLS handshake in time")):
                    super().do_handshake()
                return
            except OSError as error:
                reason = str(error)
        log.info("connection_refused", client=address, reason=reason)
        self.close()
        raise gevent.GreenletExit

    def begin_answer(self) -> None:
        """The next thing that is sent is an answer's head: it waits for what comes after it, so
        that both are one packet and one piece of work for TLS. gunicorn sends it when it has that.
        """
        self._awaits_head = True

    def end_answer(self) -> None:
        """The answer ends; it may have been no more than a head."""
        self._awaits_head = False
        if self._head and self.fileno() >= 0:
            self.sendall(b"")

    def sendall(self, data: Any, flags: int = 0) -> None:
        if self._awaits_head:
            self._awaits_head, self._head = False, bytes(data)
            return
        if self._head:
            data, self._head = self._head + data, b""
        try:
            with gevent.Timeout(SEND_SECONDS, TimeoutError):
                super().sendall(data, flags)
        except TimeoutError as error:
            log.info("answer_not_read", client=self._counted)
            raise BrokenPipeError(f"the client read nothing for {SEND_SECONDS} s") from error

    def close(self) -> None:
        if self.kept:
            return
        if self._counted is not None:
            _connections[self._counted] -= 1
            if not _connections[self._counted]:
                del _connections[self._counted]
            self._counted = None
        super().close()


class BoundedBody:
    """A request's body, each piece of which has to come in time."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._failed = False

    @property
    def failed(self) -> bool:
        """Whether it is unknown where it ends: then the connection serves no further request."""
        return self._failed or bool(getattr(self._body, "failed", False))

    def read(self, size: int | None = None) -> bytes:
        """At most ``size`` bytes, and at most ``BODY_PIECE``; none at the end.

        :raises RequestTimeout: they did not come in time.
        :raises BadRequest: the client's framing of it is wrong, or it went away.
        """
        wanted = BODY_PIECE if size is None or size < 0 else min(size, BODY_PIECE)
        try:
            with gevent.Timeout(BODY_SECONDS, TimeoutError):
                content: bytes = self._body.read(wanted)
        except TimeoutError as error:
            self._failed = True
            raise RequestTimeout(
                f"the next {BODY_PIECE} bytes of the body did not come within {BODY_SECONDS} s"
            ) from error
        except (ParseException, OSError) as error:
            self._failed = True
            raise BadRequest(f"the body is not framed as HTTP wants it: {error}") from error
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


class WrongHost(ParseException):  # type: ignore[misc]
    """It is not clear whom a request is for."""


def check_host(version: tuple[int, int], fields: Iterable[tuple[str, str]]) -> None:
    """Refuse a request without exactly one valid ``Host`` (RFC 9112, 3.2).

    :param fields: names in capitals and values, as gunicorn gives them.
    :raises WrongHost: it has none (HTTP/1.0 may do without), several, or one that is no address.
    """
    hosts = [value for name, value in fields if name == "HOST"]
    if len(hosts) > 1 or (not hosts and version >= (1, 1)):
        raise WrongHost(f"it has {len(hosts)} Host fields instead of one")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise WrongHost("its Host field is no address")


class BoundedWorker(GeventWorker):  # type: ignore[misc]
    """A worker whose clients are bounded."""

    def init_process(self) -> None:
        collect_rarely()
        super().init_process()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        check_host(req.version, req.headers)
        req.body = BoundedBody(req.body)
        sock.begin_answer()
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.end_answer()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no HTTP with a problem; all else is gunicorn's."""
        status = next((status for kind, status in _STATUS if isinstance(exc, kind)), None)
        if status is None:
            super().handle_error(req, client, addr, exc)
            return
        log.info("request_refused", client=addr[0] if addr else None, reason=str(exc))
        try:
            client.sendall(refusal(status, f"the request cannot be read: {exc}"))
        except OSError:
            log.debug("client_gone", client=addr[0] if addr else None)
