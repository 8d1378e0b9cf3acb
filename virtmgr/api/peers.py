"""Who calls on the agents' listener: what TLS has verified of a connection's other side."""

from __future__ import annotations

from socket import IPPROTO_TCP, TCP_INFO
from ssl import SSLSocket
from typing import Any, Final
from weakref import WeakKeyDictionary

from virtmgr.domain.errors import Unauthenticated
from virtmgr.ports.certificates import subject_of

_ESTABLISHED: Final = 1  # the first byte of Linux's ``struct tcp_info``, in such a connection

_known: WeakKeyDictionary[SSLSocket, tuple[str, str]] = WeakKeyDictionary()
"""What was read of a connection's certificate: it stays the same while the connection lasts."""


def host_certificate(environ: dict[str, Any]) -> tuple[str, str]:
    """The host's id and the serial number in the connection's certificate: not looked up yet.

    :param environ: of a WSGI request that gunicorn has taken.
    :raises Unauthenticated: there is no certificate, or it names nobody.
    """
    peer = environ.get("gunicorn.socket")
    if not isinstance(peer, SSLSocket):
        return _shown(None)
    found = _known.get(peer)
    if found is None:
        found = _known[peer] = _shown(peer.getpeercert())
    return found


def has_left(environ: dict[str, Any]) -> bool:
    """Whether who asks has given up: it has ended the connection, of which nobody here has read.

    :param environ: of a WSGI request that gunicorn has taken.
    """
    peer = environ.get("gunicorn.socket")
    if not isinstance(peer, SSLSocket):
        return False
    try:
        state: bytes = peer.getsockopt(IPPROTO_TCP, TCP_INFO, 1)
    except OSError:
        return True
    return state[0] != _ESTABLISHED


def _shown(certificate: dict[str, Any] | None) -> tuple[str, str]:
    host_id = subject_of(certificate)
    if not certificate or host_id is None:
        raise Unauthenticated(
            "this needs a host's client certificate",
            code="certificate_required",
            hint="enrol the host with a join token",
        )
    return host_id, str(certificate["serialNumber"]).lower().lstrip("0")
