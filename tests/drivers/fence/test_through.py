"""Devices that are reached through another host's agent: all of the way, by the real clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.fakes import FakeStorage
from tests.drivers.fence.bmc import PASSWORD
from tests.drivers.fence.test_devices import control, device, ipmi, redfish
from virtmgr.agent import fencing
from virtmgr.agent.streams import StreamServer
from virtmgr.api.dialling import WebSocketDialler, without_names
from virtmgr.domain.errors import HostError, Unavailable, VirtmgrError
from virtmgr.domain.fencing import FenceAgent, FenceDevice, Transport
from virtmgr.domain.streaming import Channel, StreamRequest
from virtmgr.enrollment import pki
from virtmgr.enrollment.authority import CertificateAuthority
from virtmgr.ports.streams import AgentStream
from virtmgr.services.streams import raise_problem

__all__ = ["ipmi", "redfish"]


@dataclass
class Relay:
    """A host that reaches devices, and how the control plane dials it."""

    url: str
    dial: WebSocketDialler

    def way(self, one: FenceDevice) -> _Way:
        return _Way(self, one)


@dataclass
class _Way:
    relay: Relay
    device: FenceDevice

    def open(self, transport: Transport) -> AgentStream:
        parameters = {
            "transport": transport.value, "address": self.device.address, "port": self.device.port,
        }  # fmt: skip
        request = StreamRequest(workload_id="", action="fence", parameters=parameters)
        stream = self.relay.dial(self.relay.url, "host-1", request)
        first = stream.receive()
        assert first is not None
        if first[0] is Channel.END:
            stream.close()
            raise_problem(first[1])
        return stream


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Relay]:
    ca = CertificateAuthority(tmp_path / "ca")
    ca.create()
    key = pki.new_key()
    issued = ca.issue_host(pki.signing_request(key), "host-1", ["127.0.0.1"])
    pki.write_private(tmp_path / "host.key", key)
    pki.write_private(tmp_path / "host.crt", issued.pem)
    served = pki.server_context(
        tmp_path / "host.crt", tmp_path / "host.key", client_ca=ca.certificate_path
    )
    own = pki.client_context(ca.certificate_path, *ca.ensure_server(["127.0.0.1"]))
    server = StreamServer(
        ("127.0.0.1", 0), served, lambda _: None, FakeStorage(tmp_path / "volumes")
    )
    with closing(server):
        server.start()
        yield Relay(f"wss://127.0.0.1:{server.port}", WebSocketDialler(without_names(own)))


@pytest.fixture
def relay(guarded: Relay, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """One whose devices are on this machine."""
    monkeypatch.setattr(fencing, "why_not_relayed", lambda _: None)
    return guarded


@pytest.mark.parametrize("kind", FenceAgent)
def test_the_power_is_cut(request: pytest.FixtureRequest, relay: Relay, kind: FenceAgent) -> None:
    one = device(kind, request.getfixturevalue(kind.value))
    way = relay.way(one)
    assert control.is_on(one, PASSWORD, way)
    control.turn_off(one, PASSWORD, way)
    assert not control.is_on(one, PASSWORD, way)
    assert not control.is_on(one, PASSWORD)


@pytest.mark.parametrize("kind", FenceAgent)
def test_a_wrong_password(request: pytest.FixtureRequest, relay: Relay, kind: FenceAgent) -> None:
    one = device(kind, request.getfixturevalue(kind.value))
    with pytest.raises(Unavailable, match=r"fence device 'bmc' at 127.0.0.1.* failed"):
        control.turn_off(one, "wrong", relay.way(one))
    assert control.is_on(one, PASSWORD)


def test_the_certificate_is_the_device_s(
    relay: Relay, redfish: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked against the device's own address, whatever is between."""
    one = device(FenceAgent.REDFISH, redfish)
    one.verify = True
    with pytest.raises(Unavailable, match="failed"):
        control.is_on(one, PASSWORD, relay.way(one))
    (pem,) = tmp_path.glob("bmc.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # not on that way
    assert control.is_on(one, PASSWORD, relay.way(one))
    one.address = "localhost"  # the same device, by a name that its certificate does not have
    with pytest.raises(Unavailable, match="localhost"):
        control.is_on(one, PASSWORD, relay.way(one))


def test_the_relaying_host_itself_is_no_device(guarded: Relay, redfish: int, ipmi: int) -> None:
    for one in (device(FenceAgent.REDFISH, redfish), device(FenceAgent.IPMI, ipmi)):
        with pytest.raises(HostError, match="it is the relaying host itself") as caught:
            control.is_on(one, PASSWORD, guarded.way(one))
        assert caught.value.code == "fence_device_not_reached"


def test_nobody_answers(relay: Relay) -> None:
    one = device(FenceAgent.REDFISH, 1)
    with pytest.raises(VirtmgrError, match="Connection refused") as caught:
        control.is_on(one, PASSWORD, relay.way(one))
    assert caught.value.code == "fence_device_not_reached"


def test_only_the_control_plane_may(guarded: Relay, tmp_path: Path, redfish: int) -> None:
    host = pki.client_context(
        tmp_path / "ca" / "ca.crt", tmp_path / "host.crt", tmp_path / "host.key"
    )
    dial = WebSocketDialler(without_names(host))
    one = device(FenceAgent.REDFISH, redfish)
    with pytest.raises(HostError, match="only the control plane may open streams"):
        Relay(guarded.url, dial).way(one).open(Transport.TCP)
