"""The floor of ``bench/api_list.py``: virtmgr's server, and an application that only answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from virtmgr.bootstrap.web import WebServer, Wsgi
from virtmgr.config.settings import ServerSettings


class Floor(WebServer):
    """Answers every request with the bytes of the file beside the data directory."""

    def load(self) -> Wsgi:
        super().load()  # which holds the certificate
        answer = (self._settings.data_directory.parent / "server.answer").read_bytes()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]

        def application(_: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            start("200 OK", headers)
            return [answer]

        return application


if __name__ == "__main__":
    settings = ServerSettings.load({}, os.environ)
    settings.run_directory.mkdir(parents=True, exist_ok=True)
    Floor(settings).run()
