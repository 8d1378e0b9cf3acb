"""The connection: TLS, retries, problems, exit codes, and what is imported."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flask import Response

from tests.cli.conftest import Run
from tests.cli.fake_server import TOKEN, FakeServer, State, problem


def make_certificate(directory: Path) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1, which is its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "server.crt", directory / "server.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(files[0]), str(files[1])


def test_only_the_pinned_ca_is_trusted(
    bare: Run, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    state.workload("web1")
    with FakeServer(state, certificate) as server:
        monkeypatch.setenv("VIRTMGR_SERVER", server.url)
        monkeypatch.setenv("VIRTMGR_TOKEN", TOKEN)
        refused = bare("list")
        assert refused.exit_code == 6
        assert "no certificate that is trusted" in refused.stderr
        assert state.requests == []
        monkeypatch.setenv("VIRTMGR_CA_FILE", certificate[0])
        assert "web1" in bare("list").stdout


def test_a_token_never_goes_out_in_the_clear(bare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTMGR_SERVER", "http://192.0.2.1:7443")
    result = bare("list")
    assert result.exit_code == 2
    assert "not encrypted" in result.stderr


def test_unreachable(bare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("VIRTMGR_SERVER", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    result = bare("list")
    assert result.exit_code == 6
    assert "cannot be reached: Connection refused" in result.stderr
    assert "hint: " in result.stderr


def test_a_retry_keeps_its_idempotency_key(
    virtmgr: Run, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.workload("a")
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    state.answers += [
        Response("bad gateway", 502, content_type="text/html"),
        problem(503, "unavailable", "busy"),
    ]
    state.answers[1].headers["Retry-After"] = "1"  # type: ignore[union-attr]
    assert virtmgr("start", "a").exit_code == 0
    sent = {headers["idempotency-key"] for method, _p, _b, headers in state.requests[:3]}
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (422, "invalid_request", 2),
        (404, "not_found", 3),
        (409, "quota_exceeded", 4),
        (409, "a_new_code", 4),
        (412, "precondition_failed", 4),
        (401, "unauthenticated", 5),
        (403, "forbidden", 5),
        (503, "unavailable", 6),
        (500, "internal_error", 1),
        (502, "image_error", 1),
    ],
)
def test_exit_codes(virtmgr: Run, state: State, status: int, code: str, expected: int) -> None:
    state.answers.append(problem(status, code, "no", field="name", hint="do it"))
    result = virtmgr("get", "x", "-o", "json")
    assert result.exit_code == expected
    told = json.loads(result.stderr)["error"]
    assert (told["code"], told["field"], told["hint"]) == (code, "name", "do it")
    assert told["exit_code"] == expected


def test_every_wrong_field_is_named(virtmgr: Run, state: State) -> None:
    found = [
        {"field": "kind", "code": "enum", "message": "is vm or container"},
        {"field": "image", "code": "missing", "message": "is needed"},
    ]
    state.answers.append(problem(422, "invalid_request", "the request is not valid", errors=found))
    text = virtmgr("create", "x").stderr
    assert "  kind: is vm or container\n  image: is needed\n" in text


def test_usage_errors(virtmgr: Run) -> None:
    assert virtmgr("list", "--colour").exit_code == 2
    assert virtmgr("frobnicate").exit_code == 2
    assert virtmgr("create", "x", "--port", "http").exit_code == 2


def test_debug_shows_where(virtmgr: Run) -> None:
    assert "Traceback" not in virtmgr("get", "nothing").stderr
    assert "Traceback" in virtmgr("get", "nothing", "--debug").stderr


HEAVY = ("pydantic", "rich", "httpx2", "yaml", "sqlalchemy", "websockets", "flask", "numpy")


def test_list_imports_nothing_heavy(state: State, server: FakeServer, tmp_path: Path) -> None:
    state.workload("web1")
    config = tmp_path / "config.yaml"
    context = {"server": server.url, "token": TOKEN}
    config.write_text(json.dumps({"current": "here", "contexts": {"here": context}}))
    config.chmod(0o600)
    code = (
        "import sys\nfrom virtmgr.cli.main import root\n"
        "try:\n    root.main(['list'])\n"
        f"finally:\n    print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"VIRTMGR_CONFIG": str(config), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "web1" in done.stdout
    assert done.stderr.strip() == "[]"


def test_every_command_loads_and_has_help(bare: Run) -> None:
    from click import Context, Group

    from virtmgr.cli.main import root

    def walk(group: Group, path: tuple[str, ...]) -> None:
        for name in group.list_commands(Context(group)):
            command = group.get_command(Context(group), name)
            assert command is not None
            assert command.help, path
            assert bare(*path, name, "--help").exit_code == 0
            if isinstance(command, Group):
                walk(command, (*path, name))

    walk(root, ())
