"""The REST API, asked in the same process: WSGI instead of a connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any, Final
from urllib.parse import quote

import httpx2
from werkzeug.test import EnvironBuilder, run_wsgi_app

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

PREFIX: Final = "/api/v1"
_INVALID: Final = "the request is not valid: "


@dataclass(frozen=True)
class Reply:
    """What the API answered: its status, the JSON document, and the version of what it shows."""

    status: int
    document: Any
    etag: str | None = None

    def __getitem__(self, name: str) -> Any:
        return self.document[name]

    @property
    def operation(self) -> Mapping[str, Any] | None:
        """The operation that was begun, or the first of several; None where it is done."""
        if self.status != 202:
            return None
        items: list[Mapping[str, Any]] = self.document.get("items", [self.document])
        return items[0]


class Refusal(Exception):
    """The API refused; ``problem`` is its document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem

    def __str__(self) -> str:
        detail = str(self.problem.get("detail", f"HTTP status {self.status}"))
        return detail.removeprefix(_INVALID) if self.problem.get("errors") else detail

    @property
    def code(self) -> str:
        return str(self.problem.get("code", ""))

    @property
    def hint(self) -> str | None:
        """What to do next; where fields are wrong, they say it themselves."""
        return None if self.problem.get("errors") else self.problem.get("hint")

    @property
    def fields(self) -> Mapping[str, str]:
        """What is wrong with which field of the request, by its dotted name."""
        found = {error["field"]: error["message"] for error in self.problem.get("errors") or ()}
        named = self.problem.get("field")
        return found if found or not named else {named: str(self)}


class Rest:
    """The API as one session. Paths are templates: ``get("/hosts/{host}", host=name)``.

    :param secret: the session's token; None for what is public.
    :param address: whose request it is that the API is asked for.
    :param headers: sent with everything.
    """

    def __init__(
        self,
        api: Wsgi,
        secret: str | None,
        *,
        address: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._api = api
        self._transport = httpx2.WSGITransport(app=api, remote_addr=address or "127.0.0.1")
        self._secret = secret
        self._address = address
        self._headers = headers

    def as_token(self, secret: str) -> Rest:
        """The same API as another session."""
        return Rest(self._api, secret, address=self._address, headers=self._headers)

    def get(self, path: str, query: Mapping[str, Any] | None = None, /, **parameters: str) -> Reply:
        """Read.

        :raises Refusal: the API refused.
        """
        return self.ask("GET", path, query=query, **parameters)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        /,
        *,
        query: Mapping[str, Any] | None = None,
        etag: str | None = None,
        **parameters: str,
    ) -> Reply:
        """Read or change; ``etag`` refuses the change where somebody else was faster.

        :raises Refusal: the API refused.
        """
        headers = {"If-Match": etag} if etag else {}
        response = self._send(method, path, query, headers, parameters, json=body)
        content = response.read()
        document = response.json() if content else None
        if response.status_code >= 400:
            raise Refusal(response.status_code, document or {})
        return Reply(response.status_code, document, response.headers.get("ETag"))

    def send(
        self, method: str, path: str, content: bytes, headers: Mapping[str, str], **parameters: str
    ) -> httpx2.Response:
        """A body that is no JSON, such as a piece of an upload; the answer as it is."""
        response = self._send(method, path, None, headers, parameters, content=content)
        response.read()
        return response

    def pass_on(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: IO[bytes],
        size: int,
        headers: Mapping[str, str],
        /,
        **parameters: str,
    ) -> None:
        """A body of any size, read while the API takes it.

        :raises Refusal: the API refused.
        """
        sent = {**self._headers, **headers, "Authorization": f"Bearer {self._secret}"}
        builder = EnvironBuilder(
            PREFIX + _filled(path, parameters),
            method=method,
            query_string=dict(query),
            headers=[(name, _sendable(value)) for name, value in sent.items()],
        )
        environ = builder.get_environ() | {"wsgi.input": body, "CONTENT_LENGTH": str(size)}
        pieces, status, _ = run_wsgi_app(self._api, environ)
        content = b"".join(pieces)
        code = int(status.split(" ", 1)[0])
        if code >= 400:
            raise Refusal(code, json.loads(content or b"{}"))

    def stream(
        self,
        path: str,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        /,
        **parameters: str,
    ) -> Iterator[bytes]:
        """The pieces of an answer that goes on.

        :raises Refusal: the API refused.
        """
        response = self._send("GET", path, query, headers, parameters)
        if response.status_code >= 400:
            response.read()
            raise Refusal(response.status_code, response.json())
        return _pieces(response)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        parameters: Mapping[str, str],
        **content: Any,
    ) -> httpx2.Response:
        given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        if self._secret is not None:
            headers = {"Authorization": f"Bearer {self._secret}", **headers}
        if content.get("json") is None:
            content.pop("json", None)
        elif method == "PATCH":
            headers = {"Content-Type": "application/merge-patch+json", **headers}
        sent = {name: _sendable(value) for name, value in {**self._headers, **headers}.items()}
        request = httpx2.Request(
            method,
            f"http://console{PREFIX}{_filled(path, parameters)}",
            params=httpx2.QueryParams(given),
            headers=sent,
            **content,
        )
        return self._transport.handle_request(request)


def _filled(path: str, parameters: Mapping[str, str]) -> str:
    return path.format(**{name: _segment(text) for name, text in parameters.items()})


def _segment(text: str) -> str:
    """A name in a path: one segment of it, whatever it is.

    :raises Refusal: it would be none, or several; nothing is called so.
    """
    if not text or "/" in text or not text.isascii():
        raise Refusal(404, {"detail": f"there is nothing called {text!r}"})
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def _sendable(value: str) -> str:
    """A header's value of what browsers send: of ASCII, as headers are."""
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in value)


def _pieces(response: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_bytes()
    finally:
        response.close()
