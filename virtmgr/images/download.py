"""Fetching a file by HTTP(S) from a server that is not trusted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2

from virtmgr.domain.errors import ImageError, InvalidRequest, StorageError
from virtmgr.images.task import Task

_MOST_REDIRECTS = 5
_ATTEMPTS = 5
_TIMEOUT = httpx2.Timeout(30.0)


def download(url: str, target: Path, *, limit: int, task: Task) -> None:
    """Fetch ``url`` to the new file ``target``; goes on where a connection broke.

    Redirects may lead from http to https, never back, and to no other scheme.

    :raises ImageError: the server refuses, sends more than ``limit`` bytes, or cannot be reached.
    """
    _check_scheme(url)
    task.phase(f"downloading {_without_secrets(url)}")
    with httpx2.Client(timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"}) as client:
        state = _State(target)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _fetch(client, url, state, limit, task)
                return
            except httpx2.TransportError as error:
                if attempt == _ATTEMPTS:
                    raise ImageError(
                        f"cannot download {_without_secrets(url)}: {error or type(error).__name__}",
                        hint="Check the address and that the control plane can reach it.",
                    ) from error
            task.check()
            time.sleep(0.2 * attempt)


class _State:
    """What has come so far, and how to ask for the rest of the very same file."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.done = 0
        self.validator: str | None = None

    def headers(self) -> dict[str, str]:
        if not self.done or self.validator is None:
            return {}
        return {"Range": f"bytes={self.done}-", "If-Range": self.validator}


def _fetch(client: httpx2.Client, url: str, state: _State, limit: int, task: Task) -> None:
    with _follow(client, url, state.headers()) as response:
        if response.status_code not in (200, 206):
            raise ImageError(
                f"cannot download {_without_secrets(url)}: the server answers "
                f"{response.status_code} {response.reason_phrase}"
            )
        if response.status_code == 200:
            state.done = 0
        etag = response.headers.get("etag", "")
        state.validator = etag if etag.startswith('"') else None
        length = response.headers.get("content-length", "")
        task.total = state.done + int(length) if length.isdigit() else None
        _check_size(task.total or 0, limit)
        try:
            with open(state.target, "r+b" if state.done else "wb", buffering=0) as file:
                file.seek(state.done)
                _receive(response, file.fileno(), state, limit, task)
        except OSError as error:
            raise StorageError(f"cannot store the download: {error.strerror}") from error


def _receive(
    response: httpx2.Response, descriptor: int, state: _State, limit: int, task: Task
) -> None:
    task.done = state.done
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        for chunk in response.iter_raw():
            _check_size(state.done + len(chunk), limit)
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) or 0 :]
            state.done += len(chunk)
            task.advance(len(chunk))


@contextmanager
def _follow(client: httpx2.Client, url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
    for _ in range(_MOST_REDIRECTS + 1):
        with client.stream("GET", url, headers=headers) as response:
            if not response.is_redirect:
                yield response
                return
            target = urljoin(url, response.headers["location"])
        _check_scheme(target, before=url)
        url = target
    raise ImageError("the server redirects too often", code="image_refused")


def _check_scheme(url: str, before: str | None = None) -> None:
    scheme = urlsplit(url).scheme
    if before is None and scheme not in ("http", "https"):
        raise InvalidRequest(f"{url!r} is no http or https address", field="source")
    if before is not None and (
        scheme not in ("http", "https") or (scheme, urlsplit(before).scheme) == ("http", "https")
    ):
        raise ImageError(
            f"the server redirects from {urlsplit(before).scheme} to {scheme or 'nothing'}, "
            "which is not followed",
            code="image_refused",
        )


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ImageError(
            f"the download has more than {limit} bytes, which is what is allowed",
            code="image_too_large",
        )


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
