"""Both kinds of fence devices, by their real clients: IPMI to pyghmi's BMC, Redfish over HTTPS."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.drivers.fence.bmc import PASSWORD, USER
from virtmgr.domain.errors import Unavailable
from virtmgr.domain.fencing import FenceAgent, FenceDevice
from virtmgr.drivers.fence.control import FenceControl

_ROOT = Path(__file__).resolve().parents[3]
_SYSTEM = "/redfish/v1/Systems/one"
control = FenceControl()


class Redfish(BaseHTTPRequestHandler):
    """A service with one system; its power is on until it is cut."""

    power = "On"

    def do_GET(self) -> None:
        name = {"Id": "x", "Name": "x", "@odata.type": "#x.v1_0_0.x", "@odata.id": self.path}
        bodies: dict[str, dict[str, Any]] = {
            "/redfish/v1": {
                "RedfishVersion": "1.6.0",
                "Systems": {"@odata.id": "/redfish/v1/Systems"},
            },
            "/redfish/v1/Systems": {
                "Members": [{"@odata.id": _SYSTEM}],
                "Members@odata.count": 1,
            },
            _SYSTEM: {
                "PowerState": type(self).power,
                "Actions": {
                    "#ComputerSystem.Reset": {
                        "target": f"{_SYSTEM}/Actions/ComputerSystem.Reset",
                        "ResetType@Redfish.AllowableValues": ["On", "ForceOff"],
                    }
                },
            },
        }
        self._answer({**name, **bodies[self.path.rstrip("/")]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._may() and body == {"ResetType": "ForceOff"}:
            type(self).power = "Off"
        self._answer({})

    def _may(self) -> bool:
        if self.path.rstrip("/") == "/redfish/v1":
            return True  # the root is for everybody (DSP0266, 13.2.3)
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {known}"

    def _answer(self, body: dict[str, Any]) -> None:
        content = json.dumps(body if self._may() else {}).encode()
        self.send_response(200 if self._may() else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


def certificate(directory: Path) -> Path:
    """Key and certificate of 127.0.0.1 that nobody signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bmc")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    file = directory / "bmc.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(pem))
    return file


def device(agent: FenceAgent, port: int, **fields: Any) -> FenceDevice:
    return FenceDevice(
        id="d", host_id="h", name="bmc", agent=agent, address="127.0.0.1", port=port, user=USER,
        sealed="", verify=False, created_at=datetime.now(UTC), **fields,
    )  # fmt: skip


@pytest.fixture
def redfish(tmp_path: Path) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Redfish)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Redfish.power = "On"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def ipmi() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with subprocess.Popen(
        [sys.executable, "-m", "tests.drivers.fence.bmc", str(port)], cwd=_ROOT,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield port
        finally:
            process.kill()


@pytest.mark.parametrize("kind", FenceAgent)
def test_the_power_is_cut(request: pytest.FixtureRequest, kind: FenceAgent) -> None:
    one = device(kind, request.getfixturevalue(kind.value))
    assert control.is_on(one, PASSWORD)
    control.turn_off(one, PASSWORD)
    assert not control.is_on(one, PASSWORD)
    control.turn_off(one, PASSWORD)  # once more changes nothing
    assert not control.is_on(one, PASSWORD)


@pytest.mark.parametrize("kind", FenceAgent)
def test_a_wrong_password(request: pytest.FixtureRequest, kind: FenceAgent) -> None:
    one = device(kind, request.getfixturevalue(kind.value))
    with pytest.raises(Unavailable, match=r"fence device 'bmc' at 127.0.0.1.* failed"):
        control.turn_off(one, "wrong")
    assert control.is_on(one, PASSWORD)


def test_an_unknown_certificate(redfish: int) -> None:
    one = device(FenceAgent.REDFISH, redfish)
    one.verify = True
    with pytest.raises(Unavailable, match="failed") as caught:
        control.is_on(one, PASSWORD)
    assert PASSWORD not in str(caught.value)


def test_nobody_answers() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(Unavailable, match="failed"):
            control.is_on(device(FenceAgent.REDFISH, port), PASSWORD)


def test_a_system_by_its_path(redfish: int) -> None:
    assert control.is_on(device(FenceAgent.REDFISH, redfish, system=_SYSTEM), PASSWORD)
    with pytest.raises(Unavailable):
        control.is_on(device(FenceAgent.REDFISH, redfish, system="/redfish/v1/none"), PASSWORD)
