"""The host's own key and certificate, and how it gets them."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from virtmgr.agent.control_plane import ControlPlane, join
from virtmgr.agent.fingerprint import machine_id
from virtmgr.config.settings import AgentSettings
from virtmgr.domain.errors import Forbidden, InvalidRequest
from virtmgr.domain.machine import Machine
from virtmgr.ports.certificates import KeyTools

_log = structlog.get_logger()


@dataclass(frozen=True)
class Identity:
    """Who this host is to its control plane."""

    host_id: str
    server: str
    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "host.key"

    @property
    def certificate(self) -> Path:
        return self.directory / "host.crt"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"


def load_or_join(settings: AgentSettings, tools: KeyTools) -> Identity:
    """The identity from an earlier enrolment, or a new one by the join token.

    :raises InvalidRequest: this host was never enrolled and has no join token.
    """
    directory = settings.data_directory / "pki"
    kept = directory / "identity.json"
    if kept.exists():
        document = json.loads(kept.read_text())
        server = settings.server or document["server"]
        return Identity(host_id=document["host_id"], server=server, directory=directory)
    if settings.join_token_file is None or settings.ca_file is None or not settings.server:
        raise InvalidRequest(
            "this host is not enrolled yet",
            code="not_enrolled",
            hint="get a join token with 'virtmgr host token NAME' and start the agent with "
            "--server, --ca-file and --join-token-file",
        )
    tools.write_private(directory / "ca.crt", settings.ca_file.read_bytes())
    key = directory / "host.key"
    if not key.exists():
        tools.write_private(key, tools.new_key())
    token = settings.join_token_file.read_text().strip()
    answer = _join(settings.server, directory, token, tools)
    tools.write_private(directory / "host.crt", answer["certificate"].encode())
    server = answer.get("agent_server") or settings.server
    document = {"host_id": answer["host_id"], "server": server}
    tools.write_private(kept, json.dumps(document).encode())
    _log.info("host.enrolled", host=answer["host_id"], server=server)
    return Identity(host_id=answer["host_id"], server=server, directory=directory)


def join_again(identity: Identity, token: str, tools: KeyTools) -> None:
    """Get a certificate by a join token, for the key and as the host that this one is.

    :raises Forbidden: the token is refused, or is for another host.
    """
    answer = _join(identity.server, identity.directory, token, tools)
    if answer["host_id"] != identity.host_id:
        raise Forbidden(
            f"join again as host {identity.host_id}: the token was for another host",
            code="another_host",
            hint="make one with 'virtmgr host token NAME --again', for the host that this one is",
        )
    tools.write_private(identity.certificate, answer["certificate"].encode())
    _log.info("host.joined_again", host=identity.host_id)


def _join(server: str, directory: Path, token: str, tools: KeyTools) -> dict[str, Any]:
    return join(
        server,
        tools.client_context(directory / "ca.crt"),
        token,
        tools.signing_request((directory / "host.key").read_bytes()).decode(),
        Machine(machine_id(), socket.gethostname()),
    )


def client_context(identity: Identity, tools: KeyTools) -> ssl.SSLContext:
    return tools.client_context(identity.ca, identity.certificate, identity.key)


def trusted(identity: Identity, tools: KeyTools) -> tuple[str, ...]:
    """Fingerprints of the CAs that this host trusts."""
    return tools.fingerprints(identity.ca.read_bytes())


def trust(identity: Identity, authorities_pem: str, tools: KeyTools) -> None:
    """Trust these CAs from now on, and no others. Connections are to be made anew.

    :raises InvalidRequest: they cannot be read; all stays as it was.
    """
    found = tools.fingerprints(authorities_pem.encode())
    tools.write_private(identity.ca, authorities_pem.encode())
    _log.info("authorities.trusted", host=identity.host_id, fingerprints=found)


def peer_context(identity: Identity, tools: KeyTools) -> ssl.SSLContext:
    """To dial another host's agent, whose certificate says which host it is, not its address."""
    context = client_context(identity, tools)
    context.check_hostname = False
    return context


def renew_if_due(identity: Identity, control_plane: ControlPlane, tools: KeyTools) -> bool:
    """Get a fresh certificate when a third of its life is left, or when another CA issues now;
    whether one was got."""
    certificate = identity.certificate.read_bytes()
    present = tools.is_issued_by_first(certificate, identity.ca.read_bytes())
    if present and datetime.now(UTC) < tools.certificate_life(certificate).renewal_due:
        return False
    renew_now(identity, control_plane, tools)
    return True


def renew_now(identity: Identity, control_plane: ControlPlane, tools: KeyTools) -> None:
    """Get a fresh certificate for the same key. The old one stays good until this one is used."""
    request = tools.signing_request(identity.key.read_bytes()).decode()
    answer = control_plane.renew(request)
    tools.write_private(identity.certificate, answer["certificate"].encode())
    _log.info("certificate.renewed", host=identity.host_id)
