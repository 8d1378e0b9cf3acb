"""Whether the control plane can listen where it is asked to, found out before it starts."""

from __future__ import annotations

import errno
import socket
import time

import structlog

from virtmgr.config.settings import Endpoint
from virtmgr.domain.errors import Unavailable

_PATIENCE = 10.0  # seconds that the processes of a killed predecessor may take to end

_log = structlog.get_logger()


def check_free(endpoint: Endpoint, patience: float = _PATIENCE) -> None:
    """Refuse an address that cannot be listened on.

    :param patience: seconds to wait for one that is in use.
    :raises Unavailable: it is not this machine's, it is in use, or it is not allowed.
    """
    deadline = time.monotonic() + patience
    waiting = False
    while True:
        try:
            _listen_once(endpoint)
            return
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                if not waiting:
                    _log.warning("address.in_use", address=str(endpoint), waiting=patience)
                waiting = True
                time.sleep(0.2)
                continue
            raise Unavailable(
                f"cannot listen on {endpoint}: {error.strerror or error}",
                code="cannot_listen",
                hint=_hint(endpoint, error),
            ) from error


def _listen_once(endpoint: Endpoint) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)


def _hint(endpoint: Endpoint, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"see who has the port with 'ss -ltnp sport = :{endpoint.port}', end that, or choose "
            "others: --listen, --agent-listen, --stream-listen"
        )
    return "choose an address of this machine: --listen, --agent-listen, --stream-listen"
