"""``virtmgr ca``, and what contexts and hosts show of certificates."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.fake_server import TOKEN, FakeServer, State
from tests.cli.test_nouns import answer, page
from virtmgr.cli.output import until

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_PEM = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
_CA = {
    "phase": "replacing",
    "since": "2026-01-01T00:00:00Z",
    "authorities": [
        {"fingerprint": "ab" * 32, "issues": True, "begins_at": "2026-01-01T00:00:00Z",
         "expires_at": "2099-01-01T00:00:00Z"},
        {"fingerprint": "cd" * 32, "issues": False, "begins_at": "2016-01-01T00:00:00Z",
         "expires_at": "2026-01-01T00:00:00Z"},
    ],
    "certificate": 2 * _PEM,
    "waits_for": [{"host": "node2", "reason": "it is silent"}],
}  # fmt: skip


def test_it_says_where_the_change_is(virtmgr: Run, state: State) -> None:
    state.answers += [answer(_CA), answer(_CA), answer(_CA)]
    shown = virtmgr("ca", "show").stdout
    assert "virtmgr ca retire" in shown
    assert "abababababababab  yes" in shown
    assert "node2  it is silent" in shown
    assert virtmgr("ca", "show", "--certificate").stdout == 2 * _PEM
    assert json.loads(virtmgr("ca", "show", "-o", "json").stdout) == _CA


def test_it_is_changed(virtmgr: Run, state: State) -> None:
    state.answers += [answer(_CA)] * 2
    assert virtmgr("ca", "rotate").exit_code == 0
    assert virtmgr("ca", "retire", "--force", "--yes").exit_code == 0
    asked = [(method, target) for method, target, *_ in state.requests]
    assert [method for method, _ in asked] == ["POST", "POST"]
    assert asked[0][1].endswith("/ca/rotate")
    assert "/ca/retire" in asked[1][1]
    assert virtmgr("ca", "retire", input="n\n").exit_code != 0
    assert len(state.requests) == 2


def test_a_context_takes_the_present_one(
    bare: Run, server: FakeServer, state: State, tmp_path: Path
) -> None:
    file, token = tmp_path / "ca.crt", tmp_path / "token"
    token.write_text(TOKEN)
    plain = ("context", "add", "lab", "--server", server.url, "--token-file", str(token))
    assert bare(*plain).exit_code == 0
    refused = bare("context", "refresh-ca")
    assert "not one of its own" in refused.stderr
    config = tmp_path / "config.yaml"
    known = json.loads(config.read_text())
    known["contexts"]["lab"]["ca_file"] = str(file)
    config.write_text(json.dumps(known))
    state.answers.append(answer(_CA))
    assert "trusts 2 CAs" in bare("context", "refresh-ca", "lab").stdout
    found = json.loads(config.read_text())["contexts"]["lab"]
    assert found["ca"] == 2 * _PEM
    assert "ca_file" not in found
    assert found["token"] == TOKEN


def test_hosts_show_how_long_their_certificates_last(virtmgr: Run, state: State) -> None:
    ends = (datetime.now(UTC) + timedelta(days=57, minutes=1)).isoformat()
    state.answers.append(page({"name": "node1", "certificate_expires_at": ends}))
    lines = virtmgr("host", "list").stdout.splitlines()
    assert "CERTIFICATE" in lines[0]
    assert "57d" in lines[1]


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (timedelta(days=57, hours=5), "57d"),
        (timedelta(hours=23), "23h"),
        (timedelta(minutes=5), "5m"),
        (timedelta(seconds=1), "1s"),
        (timedelta(0), "past"),
        (-timedelta(days=1), "past"),
    ],
)
def test_times_ahead(ahead: timedelta, text: str) -> None:
    assert until((_NOW + ahead).isoformat(), _NOW) == text
