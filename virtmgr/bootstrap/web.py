"""The web process: gunicorn with gevent, one port for operators and one for agents.

    python -m virtmgr.bootstrap.web    (``virtmgr serve`` forks its own)

The agents' port asks for a client certificate of the private CA and does without, for those that
are about to join; all else of the agents' API insists on one.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from functools import partial
from threading import Event, Thread
from typing import Any

from gunicorn.app.base import BaseApplication

from virtmgr.bootstrap import local_streams, logs, serving
from virtmgr.bootstrap.processes import allow_many_connections, run_alone
from virtmgr.bootstrap.stream_relay import StreamRelay
from virtmgr.bootstrap.web_roles import EVERYBODY, Place, Role, role_of
from virtmgr.config.settings import ServerSettings

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_API_PREFIX = "/api"
MAX_LINE = 8190  # bytes
MAX_FIELDS = 64
MAX_FIELD = 8190  # bytes


class WebServer(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured in code."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._applications: Applications | None = None
        self._place: Place | None = None
        self.role = EVERYBODY  # until this process has its own
        self.streams = StreamRelay(partial(local_streams.connect, settings.run_directory))
        super().__init__()

    def load_config(self) -> None:
        pki = self._settings.own_pki
        options = {
            "bind": [str(self._settings.listen), str(self._settings.agent_listen)],
            "worker_class": "virtmgr.bootstrap.web_worker.WebWorker",
            "workers": self._settings.web_processes,
            "worker_connections": serving.CONNECTIONS,
            "certfile": str(pki / "server.crt"),  # so that URLs say https
            "keyfile": str(pki / "server.key"),
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
        processes = self._settings.web_processes
        self._place = Place.take(self._settings.run_directory, processes)
        if self._place is not None:
            self.role = role_of(self._place.number, processes)
        self._applications = Applications(self._settings, self.role)
        return self._applications

    def serves(self, port: int) -> bool:
        """Whether this process takes connections of the listener at ``port``."""
        return self.role.operators if self.is_for_operators(port) else self.role.agents

    def tls(self, port: int) -> ssl.SSLContext:
        """For the listener at ``port``; ``look_at_certificate`` keeps it at what is on disk."""
        assert self._applications is not None  # gunicorn loads before it serves
        certificate = self._applications.certificate
        if self.is_for_operators(port):
            return certificate.for_clients(serving.BoundedSocket)
        return certificate.for_hosts(serving.BoundedSocket)

    def is_for_operators(self, port: int) -> bool:
        """Whether a listener is that of operators; else it is that of agents."""
        return port != self._settings.agent_listen.port

    def look_at_certificate(self) -> None:
        """Take up a new one, or another CA; a few stats where there is none."""
        if self._applications is not None:
            self._applications.certificate.take_up()

    def let_go(self) -> None:
        """Let whatever waits for news be answered now: the process ends."""
        if self._applications is not None:
            self._applications.close()


class Applications:
    """The two applications, told apart by the port that a request came in on: those of its role.

    Only the process that serves loads what they need, not gunicorn's arbiter above it.
    """

    def __init__(self, settings: ServerSettings, role: Role) -> None:
        from virtmgr.api.agent import create_agent_app
        from virtmgr.api.app import create_app
        from virtmgr.api.dialling import WebSocketDialler
        from virtmgr.bootstrap.certificate import OwnCertificate
        from virtmgr.bootstrap.control_plane import authority, build_services
        from virtmgr.console.app import create_console
        from virtmgr.services.looking_ahead import look_ahead
        from virtmgr.services.wake import HostWake

        self.certificate = OwnCertificate(settings)
        self._wake = HostWake()
        dial = WebSocketDialler(self.certificate.for_agents())
        self._services = build_services(settings, dial, self._wake)
        self._ended = Event()
        self._apps: dict[bool, Wsgi] = {}  # by whether they are for agents
        if role.operators:
            api = create_app(self._services)
            self._apps[False] = Operators(api, create_console(api))
            looking = (self._services.units, self._services.known_hosts, self._ended)
            Thread(target=look_ahead, args=looking, name="looking-ahead", daemon=True).start()
        if role.agents:
            self._apps[True] = create_agent_app(self._services, authority(settings), self._wake)
        self._agent_port = str(settings.agent_listen.port)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        app = self._apps[environ["SERVER_PORT"] == self._agent_port]
        return app(environ, start_response)

    def close(self) -> None:
        """Long polls, waits for operations and streams of events end."""
        self._ended.set()
        self._wake.close()
        self._services.committed.close()
        self._services.done.close()


class Operators:
    """What operators reach on one port: the API below its prefix, the console everywhere else."""

    def __init__(self, api: Wsgi, console: Wsgi) -> None:
        self._api = api
        self._console = console

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        below = f"{environ['PATH_INFO']}/".startswith(f"{_API_PREFIX}/")
        return (self._api if below else self._console)(environ, start_response)


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    allow_many_connections()
    logs.configure("web")
    settings.run_directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    WebServer(settings).run()


def main() -> None:
    """The same as a program of its own."""
    run_alone(serve)


if __name__ == "__main__":
    main()
