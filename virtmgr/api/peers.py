"""Who calls on the agents' listener: what TLS has verified of a connection's other side."""

from __future__ import annotations

from ssl import SSLSocket
from typing import Any

from virtmgr.domain.errors import Unauthenticated
from virtmgr.ports.certificates import subject_of


def host_certificate(environ: dict[str, Any]) -> tuple[str, str]:
    """The host's id and the serial number in the connection's certificate: not looked up yet.

    :param environ: of a WSGI request that gunicorn has taken.
    :raises Unauthenticated: there is no certificate, or it names nobody.
    """
    peer = environ.get("gunicorn.socket")
    certificate = peer.getpeercert() if isinstance(peer, SSLSocket) else None
    host_id = subject_of(certificate)
    if not certificate or host_id is None:
        raise Unauthenticated(
            "this needs a host's client certificate",
            code="certificate_required",
            hint="enrol the host with a join token",
        )
    return host_id, str(certificate["serialNumber"]).lower().lstrip("0")
