"""Who calls on the agents' listener: what TLS has verified of a connection's other side."""

from __future__ import annotations

from ssl import SSLSocket
from typing import Any
from weakref import WeakKeyDictionary

from virtmgr.domain.errors import Unauthenticated
from virtmgr.ports.certificates import subject_of

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


def _shown(certificate: dict[str, Any] | None) -> tuple[str, str]:
    host_id = subject_of(certificate)
    if not certificate or host_id is None:
        raise Unauthenticated(
            "this needs a host's client certificate",
            code="certificate_required",
            hint="enrol the host with a join token",
        )
    return host_id, str(certificate["serialNumber"]).lower().lstrip("0")
