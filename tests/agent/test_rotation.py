"""The CA is changed for another one under hosts that run, hosts that are off, and clients.

Control planes (web and worker processes), TLS and the agents' loops are the real ones.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bootstrap.raw import eventually
from tests.fixtures.control_plane import Client, Server, new_control_plane, served
from tests.fixtures.enrolled_host import TOOLS, enrol_another_machine
from tests.fixtures.running_agent import running
from virtmgr.agent import identity as identities
from virtmgr.agent import pacing
from virtmgr.agent.identity import Identity, trusted
from virtmgr.bootstrap.agent import renew_certificate
from virtmgr.bootstrap.control_plane import server_certificate
from virtmgr.config.settings import AgentSettings
from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.host import HostState
from virtmgr.enrollment import pki

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two control planes on one database and one shared directory."""
    directory = tmp_path_factory.mktemp("control-planes")
    first = new_control_plane(directory / "cp1", shared=directory / "shared")
    second = first.beside()
    own = replace(second.settings, data_directory=directory / "cp2/data")
    second = replace(second, settings=own)
    server_certificate(own)
    with (
        served(first, second, module="tests.fixtures.hasty_web"),
        served(first, second, module="tests.fixtures.hasty_worker"),
    ):
        yield first, second


class Estate:
    """Hosts of a control plane, some of which run."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.client = Client(server)
        self._server, self._directory = server, directory
        self._hosts: dict[str, tuple[Identity, str]] = {}

    @contextmanager
    def runs(self, name: str, server: Server | None = None) -> Iterator[int]:
        """Its agent; the port of its streams.

        :param server: the control plane that it asks; by default that of the estate.
        """
        identity, machine = self.host(name)
        if server is not None:
            identity = replace(identity, server=f"https://{server.settings.agent_listen}")
        directory = self._directory / name
        with running(identity, directory, machine) as streams:
            eventually(lambda: self.shown(name)["state"] == "ready")
            yield streams.port

    def host(self, name: str) -> tuple[Identity, str]:
        if name not in self._hosts:
            directory = self._directory / name
            self._hosts[name] = enrol_another_machine(self._server, directory, name)
        return self._hosts[name]

    def shown(self, name: str) -> Any:
        return self.client.call("GET", f"/hosts/{name}").body

    @property
    def ca(self) -> Any:
        return self.client.call("GET", "/ca").body

    def fall_silent(self, *names: str) -> None:
        """As the leader notes when their leases have run out; None named: every host."""
        with self._server.inventory() as uow:
            for host in uow.hosts.all():
                if not names or host.name in names:
                    host.state = HostState.UNREACHABLE


@pytest.fixture
def estate(
    servers: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Estate]:
    monkeypatch.setattr(pacing, "INTERVAL", 0.5)
    made = Estate(servers[0], tmp_path)
    yield made
    made.client.close()


def _issuer(identity: Identity) -> bool:
    """Whether a host's certificate is of the CA that issues, as far as the host knows."""
    return pki.is_issued_by_first(identity.certificate.read_bytes(), identity.ca.read_bytes())


def _dial(server: Server, port: int) -> None:
    """As the control plane dials an agent's streams; both sides are verified."""
    context = pki.client_context(server.settings.ca_file, *server_certificate(server.settings))
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1)


def _answers(server: Server, trusts: ssl.SSLContext) -> bool:
    endpoint = server.settings.listen
    try:
        with socket.create_connection((endpoint.host, endpoint.port), 20) as plain:
            trusts.wrap_socket(plain, server_hostname=endpoint.host).close()
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_the_ca_is_changed_under_hosts_and_clients(
    estate: Estate, servers: tuple[Server, Server]
) -> None:
    """h1 and h2 run, at one control plane each; h3 is off, and comes back before the end."""
    client, (first, second) = estate.client, servers
    with estate.runs("h3"):
        pass
    old_client = first.tls()  # of a program that knows the CA of before only
    with ExitStack() as stack:
        ports = [
            stack.enter_context(estate.runs("h1", first)),
            stack.enter_context(estate.runs("h2", second)),
        ]
        estate.fall_silent("h3")
        before = estate.ca
        assert (before["phase"], len(before["authorities"])) == ("steady", 1)
        (old,) = (each["fingerprint"] for each in before["authorities"])
        asked = client.call("POST", "/ca/rotate?dry_run=true")
        assert asked.body["dry_run"]
        assert estate.ca["phase"] == "steady"

        begun = client.call("POST", "/ca/rotate")
        assert (begun.status, begun.body["phase"]) == (200, "spreading")
        assert client.call("POST", "/ca/rotate").body["code"] == "rotation_under_way"
        assert client.call("POST", "/ca/retire").body["code"] == "nothing_to_retire"
        eventually(lambda: estate.ca["phase"] == "replacing")  # h3 does not hold it up
        new = estate.ca["authorities"][0]["fingerprint"]
        for name in ("h1", "h2"):
            identity, _ = estate.host(name)
            eventually(lambda: trusted(identity, TOOLS) == (new, old))  # noqa: B023
            eventually(lambda: _issuer(identity))  # noqa: B023
        eventually(lambda: [each["host"] for each in estate.ca["waits_for"]] == ["h3"])
        for server in servers:
            chain = server.settings.own_pki / "server.crt"
            eventually(lambda: len(pki.fingerprints(chain.read_bytes())) == 2)  # noqa: B023
            assert _answers(server, old_client)
            assert _answers(server, server.tls())
            for port in ports:
                _dial(server, port)

        refused = client.call("POST", "/ca/retire")
        assert (refused.status, refused.body["code"]) == (409, "still_depended_on")
        assert refused.body["explanation"]["hosts"] == ["h3"]
        with estate.runs("h3") as port:  # it was off, and mends itself
            eventually(lambda: estate.ca["waits_for"] == [])
            _dial(second, port)
            eventually(lambda: client.call("POST", "/ca/retire?dry_run=true").status == 200)
            assert estate.ca["phase"] == "replacing"
            retired = client.call("POST", "/ca/retire")
            assert (retired.status, retired.body["phase"]) == (200, "steady")
            assert [each["fingerprint"] for each in estate.ca["authorities"]] == [new]
            for name in ("h1", "h2", "h3"):
                identity, _ = estate.host(name)
                eventually(lambda: trusted(identity, TOOLS) == (new,))  # noqa: B023
            for server in servers:
                eventually(lambda: not _answers(server, old_client))  # noqa: B023
                assert _answers(server, server.tls())
            for each in (*ports, port):
                _dial(second, each)
    types = {each["type"] for each in client.call("GET", "/events?limit=500").body["items"]}
    assert {"ca.rotation_begun", "ca.replaced", "ca.retired"} <= types


def test_a_host_that_was_off_all_the_time_is_mended(
    estate: Estate,
    servers: tuple[Server, Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, (first, _) = estate.client, servers
    with estate.runs("off"):
        pass
    estate.fall_silent()
    identity, machine = estate.host("off")
    monkeypatch.setattr(identities, "machine_id", lambda: machine)
    old_client = first.tls()
    assert client.call("POST", "/ca/rotate").status == 200
    eventually(lambda: estate.ca["phase"] == "replacing")
    assert client.call("POST", "/ca/retire").body["code"] == "still_depended_on"
    eventually(lambda: client.call("POST", "/ca/retire?force=true").status == 200)
    eventually(lambda: not _answers(first, old_client))

    token = client.call("POST", "/hosts/off/join-token").body["join_token"]
    kept = TOOLS.fingerprints(identity.ca.read_bytes())
    (tmp_path / "token").write_text(token)
    settings = AgentSettings(data_directory=identity.directory.parent)
    (identity.directory / "identity.json").write_text(
        f'{{"host_id": "{identity.host_id}", "server": "{identity.server}"}}'
    )
    with pytest.raises(VirtmgrError):
        renew_certificate(settings)  # it trusts nobody who answers, and nobody trusts it
    with pytest.raises(VirtmgrError):
        renew_certificate(replace(settings, ca_file=first.settings.ca_file))
    assert TOOLS.fingerprints(identity.ca.read_bytes()) != kept
    key = identity.key.read_bytes()
    renew_certificate(
        replace(settings, ca_file=first.settings.ca_file, join_token_file=tmp_path / "token")
    )
    assert identity.key.read_bytes() == key
    with estate.runs("off") as port:
        _dial(first, port)
