"""A client as docs/api.md wants one: it repeats what was not answered, with the same key."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fixtures.control_plane import PREFIX, Client, Reply, Server
from virtmgr.domain.ids import new_id

_PATIENCE = 600.0  # seconds for one answer, however many control planes die meanwhile


@dataclass
class Told:
    """How clients were put off, over all of them."""

    refused: int = 0  # 503
    without_retry_after: int = 0
    broken: int = 0  # connections


class PatientClient:
    """Asks until it is answered. One thread's."""

    def __init__(self, server: Server, told: Told) -> None:
        self._server = server
        self._told = told
        self._client: Client | None = None

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """The answer. A POST has a key, so that repeating it does nothing twice."""
        headers = {"Idempotency-Key": new_id()} if method == "POST" else {}
        deadline = time.monotonic() + _PATIENCE
        while True:
            reply = self._once(method, path, body, headers)
            if reply is not None:
                return reply
            assert time.monotonic() < deadline, f"{method} {path} is not answered"

    def _once(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply | None:
        if self._client is None:
            self._client = Client(self._server, timeout=30)
        try:
            reply = self._client.call(method, path, body, **headers)
        except (OSError, http.client.HTTPException, ValueError):
            self._told.broken += 1
            self.close()
            time.sleep(0.2)
            return None
        if reply.status != 503:
            return reply
        self._told.refused += 1
        after = reply.headers.get("Retry-After")
        self._told.without_retry_after += after is None
        time.sleep(min(1.0, float(after or 1)))
        return None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


@dataclass
class Follower:
    """Follows the event log as a browser does: it comes back with the last id that it has seen."""

    server: Server
    sequences: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                for sequence in self._stream():
                    self.sequences.append(sequence)
                    if self._stop.is_set():
                        return
            except (OSError, http.client.HTTPException):
                time.sleep(0.2)

    def stop_at(self, sequence: int) -> None:
        """End when it has seen ``sequence``."""
        deadline = time.monotonic() + 600
        while not self.sequences or self.sequences[-1] < sequence:
            assert time.monotonic() < deadline, f"it has not seen event {sequence}"
            time.sleep(0.1)
        self._stop.set()

    def _stream(self) -> Iterator[int]:
        endpoint = self.server.settings.listen
        connection = http.client.HTTPSConnection(
            endpoint.host, endpoint.port, context=self.server.tls(), timeout=20
        )
        headers = {
            "Authorization": f"Bearer {self.server.token}",
            "Accept": "text/event-stream",
            "Last-Event-ID": str(self.sequences[-1] if self.sequences else 0),
        }
        try:
            connection.request("GET", PREFIX + "/events", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                time.sleep(0.5)
                return
            while not self._stop.is_set() and (line := answer.readline()):  # or a heartbeat
                if line.startswith(b"id: "):
                    yield int(line[4:])
        finally:
            connection.close()


def wait_until(what: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for something; that it never comes about is the failure."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def pretty(reply: Reply) -> str:
    return json.dumps(reply.body)[:500]
