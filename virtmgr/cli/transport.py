"""HTTP over TLS to one server, on the standard library: quick to import, connection kept.

A general HTTP library costs three times the CPU of everything else that ``virtmgr list`` does
(measured: 180 ms against 57 ms).
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import BinaryIO
from urllib.parse import urlsplit

from virtmgr.cli.problems import TIMEOUT, UNREACHABLE
from virtmgr.domain.errors import InvalidRequest, Unavailable, VirtmgrError

Body = bytes | BinaryIO | Iterable[bytes] | None

_ATTEMPTS = 4
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 2.0
_CHUNK = 64 * 1024
_GATEWAY_STATUSES = (502, 503, 504)


@dataclass(frozen=True)
class Answer:
    """A whole answer, read."""

    status: int
    headers: Message
    body: bytes


def tls_context(ca_file: str | None, ca: str | None) -> ssl.SSLContext:
    """What is trusted: only the given CA, or the system's where none is given.

    :raises InvalidRequest: the CA cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not ca and not ca_file:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(cafile=None if ca else ca_file, cadata=ca)
    except OSError as error:
        where = "in the context" if ca else str(ca_file)
        raise InvalidRequest(
            f"reading the CA certificate {where} failed: {error}",
            hint="'virtmgr context add' takes the right one with --ca-file",
        ) from error
    return context


class Transport:
    """Sends requests to one server. Not for use by several threads at once."""

    def __init__(
        self, server: str, *, ca_file: str | None = None, ca: str | None = None, timeout: float = 60
    ) -> None:
        url = urlsplit(server)
        if url.scheme not in ("https", "http") or not url.hostname:
            raise InvalidRequest(f"{server!r} is no server; write https://ADDRESS:PORT")
        if url.scheme == "http" and not _is_loopback(url.hostname):
            raise InvalidRequest(
                f"{server} is not encrypted, and a token would be sent to it",
                hint="use https; plain http is for loopback only",
            )
        self.server = server.rstrip("/")
        self.timeout = timeout
        self._host, self._port = url.hostname, url.port
        self._prefix = url.path.rstrip("/")
        self.tls = tls_context(ca_file, ca) if url.scheme == "https" else None
        self._kept: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float | None = None,
        retry: bool,
    ) -> Answer:
        """Send, and read the whole answer.

        With ``retry`` (for what is safe to repeat) a lost connection and an overloaded server
        are tried again a few times; a refused connection is tried again in any case.

        :raises Unavailable: the server cannot be reached, or does not answer in time.
        """
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                answer = self._once(method, target, headers, body, timeout)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                safe = retry or isinstance(error, ConnectionRefusedError)
                if last or not safe or isinstance(error, ssl.SSLCertVerificationError):
                    raise self._unavailable(error) from error
                time.sleep(_backoff(attempt))
                continue
            delay = _retry_after(answer)
            if delay is None or last or not retry:
                return answer
            time.sleep(delay or _backoff(attempt))
        raise AssertionError("unreachable")

    @contextmanager
    def open(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: Body = None,
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send on a connection of its own and give the answer, to be read by ``read_chunks``.

        :raises Unavailable: the server cannot be reached, or does not answer in time.
        """
        connection = self._connection(timeout)
        try:
            try:
                response = self._exchange(connection, method, target, headers, body)
            except (OSError, http.client.HTTPException) as error:
                raise self._unavailable(error) from error
            yield response
        finally:
            connection.close()

    def read_chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The answer's body as it arrives.

        :raises Unavailable: the connection is lost, or nothing comes within the timeout.
        """
        while True:
            try:
                data = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise self._unavailable(error) from error
            if not data:
                return
            yield data

    def _once(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float | None,
    ) -> Answer:
        fresh = self._kept is None
        connection = self._kept = self._kept or self._connection(timeout)
        if connection.sock is not None:
            connection.sock.settimeout(timeout or self.timeout)
        try:
            response = self._exchange(connection, method, target, headers, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            if fresh or method not in ("GET", "HEAD"):
                raise
            self.close()  # the server closed a connection that lay idle
            return self._once(method, target, headers, body, timeout)
        answer = Answer(response.status, response.headers, response.read())
        if response.will_close:
            self.close()
        return answer

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body,
    ) -> http.client.HTTPResponse:
        try:
            connection.request(method, self._prefix + target, body, dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            if connection.sock is None or body is None:
                raise
            # The server may have refused a long body before it was all sent: hear why.
        return connection.getresponse()

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        timeout = timeout or self.timeout
        if self.tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout, context=self.tls
        )

    def _unavailable(self, error: Exception) -> VirtmgrError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unavailable(
                f"{self.server} has no certificate that is trusted: {error.verify_message}",
                code=UNREACHABLE,
                hint="give the control plane's CA: 'virtmgr context add … --ca-file FILE'",
            )
        if isinstance(error, TimeoutError):
            return Unavailable(f"{self.server} did not answer in time", code=TIMEOUT)
        if isinstance(error, socket.gaierror):
            reason = error.strerror
        else:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unavailable(
            f"{self.server} cannot be reached: {reason}",
            code=UNREACHABLE,
            hint="is the control plane running ('virtmgr serve'), and is the address right "
            "('virtmgr context show')?",
        )


def _backoff(attempt: int) -> float:
    import random

    return _FIRST_DELAY * float(2**attempt) * random.uniform(0.75, 1.25)


def _retry_after(answer: Answer) -> float | None:
    """Seconds to wait before the request is worth repeating; None: the answer stands."""
    given = answer.headers.get("Retry-After", "")
    if answer.status in (429, 503) and given.isascii() and given.isdigit():
        return float(given) if float(given) <= _LONGEST_DELAY else None
    from_proxy = "json" not in answer.headers.get("Content-Type", "")
    return 0.0 if answer.status in _GATEWAY_STATUSES and from_proxy else None


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
