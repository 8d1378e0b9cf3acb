"""The REST API as calls: JSON in and out, problems as errors, pages as iterators."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode

from virtmgr import __version__
from virtmgr.cli.contexts import Context
from virtmgr.cli.problems import from_problem
from virtmgr.cli.transport import Answer, Body, Transport
from virtmgr.domain.errors import Unauthenticated, VirtmgrError

API = "/api/v1"
Query = Mapping[str, Any]
Json = dict[str, Any]

_PAGE = 500


def segment(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")


@dataclass(frozen=True)
class Resource:
    """A resource as answered, and the version that ``If-Match`` refers to."""

    value: Json
    etag: str | None


class Client:
    """One server, one identity."""

    def __init__(self, context: Context, *, timeout: float = 60) -> None:
        self.context = context
        self.transport = Transport(
            context.server, ca_file=context.ca_file, ca=context.ca, timeout=timeout
        )

    def close(self) -> None:
        self.transport.close()

    def get(self, path: str, query: Query | None = None, *, timeout: float | None = None) -> Any:
        return _json(self._request("GET", path, query, timeout=timeout, retry=True))

    def fetch(self, path: str) -> Resource:
        """A single resource with its ETag."""
        answer = self._request("GET", path, retry=True)
        return Resource(_json(answer), answer.headers.get("ETag"))

    def post(
        self,
        path: str,
        body: Any = None,
        query: Query | None = None,
        *,
        repeatable: bool = True,
        timeout: float | None = None,
    ) -> Any:
        """POST under a fresh Idempotency-Key, so that a retry does nothing twice.

        ``repeatable=False`` for what must not be kept and answered again, such as tickets.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())} if repeatable else {}
        return _json(
            self._request("POST", path, query, body, headers, retry=repeatable, timeout=timeout)
        )

    def patch(
        self, path: str, body: Any, query: Query | None = None, *, etag: str | None = None
    ) -> Any:
        """JSON merge patch (RFC 7396)."""
        headers = {"Content-Type": "application/merge-patch+json"}
        if etag:
            headers["If-Match"] = etag
        return _json(self._request("PATCH", path, query, body, headers, retry=False))

    def put(self, path: str, body: Any) -> Any:
        return _json(self._request("PUT", path, None, body, retry=True))

    def delete(self, path: str, query: Query | None = None) -> Any:
        return _json(self._request("DELETE", path, query, retry=False))

    def pages(
        self, path: str, query: Query | None = None, *, limit: int | None = None
    ) -> Iterator[Json]:
        """Every item of a list, page after page; at most ``limit``."""
        asked: dict[str, Any] = {**(query or {}), "limit": min(_PAGE, limit or _PAGE)}
        given = 0
        while True:
            page = self.get(path, asked)
            for item in page["items"]:
                yield item
                given += 1
                if given == limit:
                    return
            if not page.get("next_cursor"):
                return
            asked["cursor"] = page["next_cursor"]

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Iterator[HTTPResponse]:
        """An answer (and a request body) that is too long, or too slow, to be held whole."""
        sent = {**self._headers(), **(headers or {})}
        opened = self.transport.open(
            method, _target(path, query), headers=sent, body=body, timeout=timeout
        )
        with opened as response:
            if response.status >= 400:
                raise _problem(response.status, response.read())
            yield response

    def download(
        self, path: str, query: Query | None = None, *, timeout: float | None = None
    ) -> Iterator[bytes]:
        """The body of a long answer as it arrives."""
        with self.stream("GET", path, query, timeout=timeout, headers={"Accept": "*/*"}) as found:
            yield from self.transport.read_chunks(found)

    def _request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        retry: bool,
        timeout: float | None = None,
    ) -> Answer:
        sent = self._headers()
        encoded = None
        if body is not None:
            encoded = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        answer = self.transport.request(
            method,
            _target(path, query),
            headers={**sent, **(headers or {})},
            body=encoded,
            retry=retry,
            timeout=timeout,
        )
        if answer.status >= 400:
            raise _problem(answer.status, answer.body)
        return answer

    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept": "application/json, application/problem+json",
            "User-Agent": f"virtmgr/{__version__}",
        }
        if self.context.token:
            headers["Authorization"] = f"Bearer {self.context.token}"
        return headers


def _target(path: str, query: Query | None) -> str:
    pairs: list[tuple[str, str]] = []
    for key, value in (query or {}).items():
        for each in _values(value):
            pairs.append((key, each))
    return API + path + ("?" + urlencode(pairs) if pairs else "")


def _values(value: Any) -> Iterable[str]:
    if value is None:
        return ()
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(str(each) for each in value)
    return (str(value),)


def _json(answer: Answer) -> Any:
    return json.loads(answer.body) if answer.body else None


def _problem(status: int, body: bytes) -> VirtmgrError:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    error = from_problem(problem if isinstance(problem, dict) else {}, status)
    if isinstance(error, Unauthenticated) and error.hint is None:
        error.hint = "'virtmgr login' gets a new token"
    return error
