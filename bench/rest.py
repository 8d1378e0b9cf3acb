"""A small REST client for measuring: one connection that is kept, nothing between it and HTTP."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from pathlib import Path
from typing import Any

_CA = Path("/var/lib/virtmgr/pki/ca.crt")
_WORKLOADS = "/api/v1/projects/default/workloads"


class Rest:
    """The API of the control plane on this machine. Not for several threads at once."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._own = threading.local()
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", 7443, context=ssl.create_default_context(cafile=str(_CA)), timeout=120
        )

    def thread_local(self) -> Rest:
        """A client of the calling thread's own."""
        if not hasattr(self._own, "client"):
            self._own.client = Rest(self._token)
        client: Rest = self._own.client
        return client

    def create(self, spec: dict[str, object]) -> None:
        """POST it and wait until it runs."""
        self._finish(self._ask("POST", f"{_WORKLOADS}?wait=60", spec))

    def stop(self, name: str) -> None:
        self._finish(self._ask("POST", f"{_WORKLOADS}/{name}/stop?wait=60", {"force": True}))

    def delete(self, name: str) -> None:
        self._finish(self._ask("DELETE", f"{_WORKLOADS}/{name}?wait=60"))

    def show(self, name: str) -> dict[str, Any]:
        return self._ask("GET", f"{_WORKLOADS}/{name}")

    def list(self, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", f"{_WORKLOADS}?limit={limit}")["items"]
        return found

    def change_something(self, number: int) -> None:
        """Commit a change, of the project's description."""
        self._ask("PATCH", "/api/v1/projects/default", {"description": str(number)})

    def _finish(self, operation: dict[str, Any]) -> None:
        if operation["state"] != "succeeded":
            raise RuntimeError(f"not done: {operation}")

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        document: dict[str, Any] = json.loads(answer.read())
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path} → {answer.status} {document}")
        return document
