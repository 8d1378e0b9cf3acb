"""An agent's certificate is renewed in time and taken up everywhere, and the old one is refused.

The CA, the web process, the TLS connections and the agent's loop are the real ones.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.bootstrap.raw import eventually
from tests.fixtures.control_plane import Client, Server, new_control_plane, served
from tests.fixtures.enrolled_host import TOOLS, enrol
from tests.fixtures.running_agent import running
from virtmgr.agent import agent as agents
from virtmgr.agent import pacing
from virtmgr.agent.control_plane import ControlPlane
from virtmgr.agent.identity import client_context
from virtmgr.bootstrap.control_plane import authority
from virtmgr.domain.errors import Forbidden
from virtmgr.domain.sync import SyncRequest
from virtmgr.enrollment import pki

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = new_control_plane(tmp_path / "control-plane")
    with served(server, module="tests.fixtures.short_lived_web"):
        yield server


def _shown(server: Server, port: int) -> bytes:
    """The certificate that the agent shows to whoever dials it."""
    ca = authority(server.settings)
    context = pki.client_context(ca.certificate_path, *ca.ensure_server(["127.0.0.1"]))
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def test_it_is_renewed_at_two_thirds_of_its_life(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_HOUSEKEEPING", 0.0)  # looks at it after each sync
    monkeypatch.setattr(pacing, "INTERVAL", 0.5)
    identity = enrol(server, tmp_path / "host")
    first = identity.certificate.read_bytes()
    key = identity.key.read_bytes()
    with (
        closing(ControlPlane(identity.server, client_context(identity, TOOLS))) as old,
        running(identity, tmp_path / "host") as streams,
    ):
        assert _shown(server, streams.port) == first
        eventually(lambda: identity.certificate.read_bytes() != first)
        second = identity.certificate.read_bytes()
        due = pki.certificate_life(first).renewal_due
        issued = pki.certificate_life(second).begins + pki.SKEW
        assert due <= issued < pki.certificate_life(first).ends
        assert identity.key.read_bytes() == key

        eventually(lambda: _shown(server, streams.port) == second)
        eventually(lambda: _is_refused(old))  # once the new one was used
        seen = _last_seen(server)
        eventually(lambda: _last_seen(server) > seen)  # and the host goes on
    client = Client(server)
    events = client.call("GET", "/events?type=host.certificate_renewed").body["items"]
    client.close()
    assert events


def _is_refused(connection: ControlPlane) -> bool:
    try:
        connection.sync(SyncRequest())
    except Forbidden as error:
        return error.code == "certificate_refused"
    return False


def _last_seen(server: Server) -> str:
    client = Client(server)
    found = client.call("GET", "/hosts/host1").body
    client.close()
    assert found["state"] == "ready"
    return str(found["last_seen_at"])


def test_a_host_that_is_removed_clears_up_and_is_refused_then(
    server: Server, tmp_path: Path
) -> None:
    identity = enrol(server, tmp_path / "host")
    client = Client(server)
    with running(identity, tmp_path / "host"):
        eventually(lambda: client.call("GET", "/hosts/host1").body["state"] == "ready")
        assert client.call("DELETE", "/hosts/host1").status == 204
        eventually(lambda: client.call("GET", "/hosts/host1").status == 404)
    with (
        closing(ControlPlane(identity.server, client_context(identity, TOOLS))) as connection,
        pytest.raises(Forbidden) as refused,
    ):
        connection.sync(SyncRequest())
    assert refused.value.code == "certificate_refused"
    told = client.call("GET", "/events?type=host.deleted").body["items"][0]
    client.close()
    assert "it has cleared up" in told["message"]


def test_lost_answers_lock_nobody_out(server: Server, tmp_path: Path) -> None:
    identity = enrol(server, tmp_path / "host")
    request = TOOLS.signing_request(identity.key.read_bytes()).decode()
    with closing(ControlPlane(identity.server, client_context(identity, TOOLS))) as old:
        for _ in range(3):
            answer = old.renew(request)  # and never used
            old.sync(SyncRequest())
        TOOLS.write_private(identity.certificate, answer["certificate"].encode())
        with closing(ControlPlane(identity.server, client_context(identity, TOOLS))) as new:
            new.sync(SyncRequest())
            assert _is_refused(old)
            new.sync(SyncRequest())
