"""Who calls on the agents' listener, and whether they still wait for an answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from ssl import SSLSocket
from typing import Any, cast

import pytest

from tests.bootstrap.raw import eventually
from virtmgr.api.agent import create_agent_app
from virtmgr.api.peers import has_left, host_certificate
from virtmgr.domain.errors import Unauthenticated
from virtmgr.domain.ids import new_id
from virtmgr.domain.sync import SyncRequest
from virtmgr.services.container import Services
from virtmgr.services.wake import HostWake


class Peer(SSLSocket):
    """The server's side of a connection, which is taken for one with a verified certificate."""

    connection: socket.socket
    host_id: str
    read = 0

    @classmethod
    def of(cls, connection: socket.socket, host_id: str) -> Peer:
        found = cls.__new__(cls)
        found.connection, found.host_id = connection, host_id
        return found

    def getpeercert(self, binary_form: bool = False) -> Any:
        del binary_form
        self.read += 1
        return {"subject": ((("commonName", self.host_id),),), "serialNumber": "00AB"}

    def getsockopt(self, *option: Any) -> Any:
        return self.connection.getsockopt(*option)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Peer]]:
    """A client, and what the server has of it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        closing(listener.accept()[0]) as accepted,
    ):
        yield client, Peer.of(accepted, new_id())


def test_a_certificate_is_read_once(ends: tuple[socket.socket, Peer]) -> None:
    _, peer = ends
    for _ in range(2):
        assert host_certificate({"gunicorn.socket": peer}) == (peer.host_id, "ab")
    assert peer.read == 1
    with pytest.raises(Unauthenticated):
        host_certificate({})


def test_who_has_ended_the_connection_has_left(ends: tuple[socket.socket, Peer]) -> None:
    client, peer = ends
    assert not has_left({})
    assert not has_left({"gunicorn.socket": peer})
    client.close()
    eventually(lambda: has_left({"gunicorn.socket": peer}))
    peer.connection.close()
    assert has_left({"gunicorn.socket": peer})


def test_nobody_works_for_an_agent_that_has_left(
    services: Services, ends: tuple[socket.socket, Peer]
) -> None:
    client, peer = ends
    app = create_agent_app(services, cast("Any", None), HostWake()).test_client()

    def sync() -> Any:
        body = SyncRequest(full=True).model_dump_json(exclude_unset=True)
        overrides = {"gunicorn.socket": peer}
        return app.post("/agent/v1/sync", data=body, environ_overrides=overrides)

    assert sync().status_code == 401  # it was looked for: the host is in no inventory
    client.close()
    eventually(lambda: has_left({"gunicorn.socket": peer}))
    assert sync().status_code == 503
