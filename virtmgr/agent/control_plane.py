"""The agent's connection to the control plane: HTTPS with mutual TLS."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any, TypeVar

import httpx2 as httpx
from pydantic import ValidationError

from virtmgr.domain.errors import Forbidden, ImageError, Unavailable
from virtmgr.domain.machine import Machine
from virtmgr.domain.sync import ACCEPTS, SyncRequest, SyncResponse
from virtmgr.domain.values import Message, first_fault

NOT_UNDERSTOOD = "not_understood"
"""The code of an error: the control plane answered, with something that this agent cannot read."""

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_CHUNK = 1 << 20

_M = TypeVar("_M", bound=Message)


class Wake(Message):
    """What a long poll answers. ``wake``: to sync now; ``pause``: seconds that may pass between
    syncs of which nothing is news, as long as leases are ``renewed`` by polls."""

    wake: bool
    renewed: bool = False
    pause: float = 10.0


class ControlPlane:
    """What an enrolled agent asks of its control plane. Safe in threads."""

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        self._client = httpx.Client(base_url=server, verify=context, timeout=_TIMEOUT)
        self.accepts: frozenset[str] = frozenset()  # beyond what the first of them knew

    def close(self) -> None:
        self._client.close()

    def sync(self, request: SyncRequest, *, timeout: float = 30.0) -> SyncResponse:
        """Report and be told what is desired.

        :param timeout: seconds without an answer.
        :raises Unavailable: the control plane does not answer, or nothing that is understood; say
            it again later.
        :raises Forbidden: this host does not belong to it (any more).
        """
        response = self._send(
            "POST",
            "/agent/v1/sync",
            request.model_dump_json(exclude_unset=True).encode(),
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
        )
        self.accepts = frozenset(response.headers.get(ACCEPTS, "").split())
        return _understood(SyncResponse, response, "/agent/v1/sync")

    def wait_for_wake(self, revision: int, timeout: float, *, renew: bool = False) -> Wake:
        """Wait up to ``timeout`` seconds for something newer than ``revision``.

        :param renew: renew the lease as well, as the question comes in. Not every control plane
            knows of it.
        :raises Unavailable: the control plane does not answer.
        :raises Forbidden: this host does not belong to it (any more).
        """
        path = f"/agent/v1/wake?revision={revision}&timeout={timeout:.1f}"
        response = self._send("GET", f"{path}&renew=1" if renew else path)
        return _understood(Wake, response, path)

    def renew(self, signing_request: str) -> dict[str, Any]:
        """A new certificate for this host's key."""
        body = json.dumps({"signing_request": signing_request}).encode()
        answer: dict[str, Any] = self._send("POST", "/agent/v1/renew", body).json()
        return answer

    def fetch(self, digest: str, offset: int) -> Iterator[bytes]:
        """A blob's bytes from ``offset`` on (``ports.host.BlobSource``).

        :raises ImageError: it is not there, or the connection broke; what came is good.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self._client.stream(
                "GET", f"/agent/v1/blobs/{digest}", headers=headers
            ) as response:
                if response.status_code not in (200, 206):
                    raise ImageError(
                        f"fetching blob {digest}: the control plane answers {response.status_code}",
                        code="blob_not_found",
                        hint="import the image again",
                    )
                yield from response.iter_raw(_CHUNK)
        except httpx.HTTPError as error:
            raise ImageError(
                f"fetching blob {digest} from the control plane failed: {error}",
                code="blob_unreachable",
                hint="it is tried again and continues where it stopped",
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> httpx.Response:
        try:
            response = self._client.request(
                method,
                path,
                content=body,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
            )
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise Unavailable(
                f"asking the control plane for {path.partition('?')[0]} failed: {error!r}",
                hint="it is tried again",
            ) from error
        return _checked(response, path)


def join(
    server: str, context: ssl.SSLContext, token: str, signing_request: str, machine: Machine
) -> dict[str, Any]:
    """Enrol with a one-time join token; answers certificate, CA and the host's id.

    :raises Forbidden: the token is wrong, used, too old, or for another machine.
    :raises Unavailable: the control plane does not answer.
    """
    body = {
        "token": token,
        "signing_request": signing_request,
        "hostname": machine.hostname,
        "machine_id": machine.id,
    }
    try:
        with httpx.Client(base_url=server, verify=context, timeout=_TIMEOUT) as client:
            response = client.post("/agent/v1/join", json=body)
    except httpx.HTTPError as error:
        raise Unavailable(
            f"enrolling at {server} failed: {error!r}",
            hint="check the address, and that the control plane runs",
        ) from error
    answer: dict[str, Any] = _checked(response, "/agent/v1/join").json()
    return answer


def _understood(model: type[_M], response: httpx.Response, path: str) -> _M:
    try:
        return model.read(response.content)
    except ValidationError as error:
        place, what = first_fault(error)
        raise Unavailable(
            f"the control plane's answer to {path.partition('?')[0]} is not understood at "
            f"{place or 'its top'}: {what}",
            code=NOT_UNDERSTOOD,
            hint="are agent and control plane of compatible versions? upgrade the older",
        ) from error


def _checked(response: httpx.Response, path: str) -> httpx.Response:
    if response.status_code < 400:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    detail = problem.get("detail", f"HTTP {response.status_code}")
    message = f"the control plane refuses {path.partition('?')[0]}: {detail}"
    hint = problem.get("hint")
    if response.status_code in (401, 403, 404, 422):
        raise Forbidden(message, code=problem.get("code", "refused"), hint=hint)
    raise Unavailable(message, code=problem.get("code"), hint=hint)
