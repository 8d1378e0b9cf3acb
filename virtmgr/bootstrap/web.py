"""The web process: gunicorn with gevent, one port for operators and one for agents.

    python -m virtmgr.bootstrap.web    (started by ``virtmgr serve``)

Both ports ask for a client certificate of the private CA and do without; only the agents' API,
which is served on its own port alone, insists on one.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.app.base import BaseApplication

from virtmgr.bootstrap import logs, serving
from virtmgr.bootstrap.control_plane import authority, build_services, server_certificate
from virtmgr.bootstrap.processes import die_with_parent
from virtmgr.config.settings import ServerSettings

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
MAX_LINE = 8190  # bytes
MAX_FIELDS = 64
MAX_FIELD = 8190  # bytes


class WebServer(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured in code."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        certificate, key = server_certificate(self._settings)
        options = {
            "bind": [str(self._settings.listen), str(self._settings.agent_listen)],
            "worker_class": "virtmgr.bootstrap.serving.Worker",
            "workers": 1,
            "worker_connections": serving.CONNECTIONS,
            "certfile": str(certificate),
            "keyfile": str(key),
            "ca_certs": str(self._settings.ca_file),
            "cert_reqs": ssl.CERT_OPTIONAL,
            "ssl_context": _context,
            "do_handshake_on_connect": True,  # once, before a connection counts as accepted
            "keepalive": serving.HEAD_SECONDS,
            "timeout": 60,
            "graceful_timeout": 5,
            "limit_request_line": MAX_LINE,
            "limit_request_fields": MAX_FIELDS,
            "limit_request_field_size": MAX_FIELD,
            "proc_name": "virtmgr-web",
            "worker_tmp_dir": str(self._settings.run_directory),
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        known = self.cfg.settings
        for name, value in options.items():
            if name in known:
                self.cfg.set(name, value)

    def load(self) -> Wsgi:
        return make_wsgi(self._settings)


def _context(configuration: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    del configuration
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = serving.BoundedSocket
    return context


def make_wsgi(settings: ServerSettings) -> Wsgi:
    """The two applications, told apart by the port that a request came in on."""
    from virtmgr.api.agent import create_agent_app
    from virtmgr.api.app import create_app
    from virtmgr.services.wake import HostWake

    wake = HostWake()
    services = build_services(settings, wake.wake)
    operators = create_app(services)
    agents = create_agent_app(services, authority(settings), wake)
    agent_port = str(settings.agent_listen.port)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        app = agents if environ["SERVER_PORT"] == agent_port else operators
        return app(environ, start_response)

    return application


def main() -> None:
    die_with_parent()
    logs.configure("web")
    settings = ServerSettings.load({}, os.environ)
    settings.run_directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    WebServer(settings).run()


if __name__ == "__main__":
    main()
