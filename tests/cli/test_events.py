"""Events, usage, waiting and small helpers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import islice

import click
import pytest
from flask import Response
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Run
from tests.cli.fake_server import TOKEN, FakeServer, State
from virtmgr.cli import events
from virtmgr.cli.client import Client
from virtmgr.cli.contexts import Context
from virtmgr.cli.images import name_from_source
from virtmgr.cli.output import age, aligned, size
from virtmgr.cli.quotas import parse_limit, rows
from virtmgr.cli.spec import parse_nic, parse_port, parse_volume
from virtmgr.cli.tokens import expiry
from virtmgr.cli.usage import moment
from virtmgr.config.settings import AgentSettings, Endpoint, ServerSettings
from virtmgr.domain.errors import InvalidRequest


def event(sequence: int) -> dict[str, object]:
    return {
        "sequence": sequence,
        "at": "2026-01-02T03:04:05Z",
        "type": "workload.created",
        "target": {"type": "workload", "id": "w", "name": f"web{sequence}"},
        "user": {"id": "u", "name": "ada"},
        "message": "made\x1b[2J",
    }


def test_following_resumes_where_it_broke_off(
    server: FakeServer, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.events = [event(n) for n in (1, 2, 3)]
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    client = Client(Context(server.url, token=TOKEN))
    found = events.stream(client, {}, None)
    assert [each["sequence"] for each in islice(found, 3)] == [1, 2, 3]
    found.close()
    assert state.last_event_ids == [None, "1", "2"]


def test_events_are_shown_without_control_characters(virtmgr: Run, state: State) -> None:
    state.events = [event(1)]
    line = virtmgr("events").stdout
    assert line.endswith("workload.created  workload web1  ada  made [2J\n")
    assert json.loads(virtmgr("events", "-o", "json").stdout) == state.events


@given(st.data())
def test_event_streams_survive_any_cut(data: st.DataObject) -> None:
    text = b": hello\n\nid: 7\nevent: x\ndata: {\ndata: }\n\nid: 8\r\ndata:b\r\n\r\ndata: lost"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    ends = [*cuts, len(text)]
    pieces = [text[a:b] for a, b in zip([0, *cuts], ends, strict=True)]
    found = list(events.parse(pieces))
    assert [(each.id, each.event, each.data) for each in found] == [
        ("7", "x", "{\n}"),
        ("8", "message", "b"),
    ]


def test_top(virtmgr: Run, state: State) -> None:
    workload = state.workload("a")
    workload["status"]["usage"] = {
        "at": "2026-01-01T00:00:00Z",
        "cpu_seconds": 11.0,
        "cpus": 0.5,
        "memory": 2**28,
        "disk": 0,
    }
    line = virtmgr("top").stdout.splitlines()[1].split()
    assert line[:5] == ["a", "running", "50.0", "11.0s", "256MiB/512MiB"]


def test_usage(virtmgr: Run, state: State) -> None:
    state.workload("a")
    unknown: dict[str, list[float | None]] = {
        name: [None, 2048] for name in ("disk_read", "disk_written", "network_received")
    }
    history = {
        "seconds": 60,
        "at": ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"],
        "cpus": [None, 0.5],
        "memory": [0, 2**28],
        "disk": [0, 0],
        **unknown,
        "network_sent": [1, 2],
    }
    for name in (("a",), ("--host", "h")):
        answer = json.dumps({"usage": None, "history": history})
        state.answers.append(Response(answer, content_type="application/json"))
        lines = [line.split() for line in virtmgr("usage", *name).stdout.splitlines()]
        assert lines[0][:3] == ["UNTIL", "CPU%", "MEMORY"]
        assert lines[2][-7:] == ["50.0", "256MiB", "0B", "2KiB", "2KiB", "2KiB", "2B"]
    assert "/hosts/h/usage?since=" in state.requests[-1][1]
    assert virtmgr("usage", "a", "--since", "soon").exit_code == 2
    assert moment("30m", datetime(2026, 1, 1, tzinfo=UTC)) == "2025-12-31T23:30:00+00:00"


def test_ports_volumes_and_nics() -> None:
    assert parse_port("[::1]:53:54/udp") == {
        "host": 53,
        "guest": 54,
        "protocol": "udp",
        "address": "::1",
    }
    assert parse_volume("data") == {"volume": "data"}
    assert parse_volume("data:ro") == {"volume": "data", "read_only": True}
    assert parse_nic("lan:fd00::7") == {"network": "lan", "address": "fd00::7"}
    for wrong in ("80", "a:80", "nowhere:1:2", "1:2/sctp"):
        with pytest.raises(InvalidRequest):
            parse_port(wrong)
    with pytest.raises(InvalidRequest):
        parse_volume("data:/x:rx")


def test_small_conversions() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert age("2025-12-31T23:58:30Z", now) == "90s"
    assert age("2025-12-25T00:00:00Z", now) == "7d"
    assert [size(n) for n in (0, 1536, 2**31)] == ["0B", "1.5KiB", "2GiB"]
    assert aligned(["A", "B"], [["日本", "x"], ["a", ""]]) == "A     B\n日本  x\na"
    assert expiry("2w", now) == (now + timedelta(days=14)).isoformat()
    assert expiry("never", now) is None
    with pytest.raises(click.UsageError):
        expiry("soon", now)
    assert name_from_source("docker://docker.io/library/nginx:1.27") == "nginx:1.27"
    assert name_from_source("https://e.org/a/Debian_12.tar.xz?x=1") == "debian_12"
    assert parse_limit("memory", "2GiB") == "2GiB"
    assert parse_limit("volumes", "none") is None
    assert rows({"limit_memory": 2**30, "used_memory": 2**29})[2] == {
        "resource": "memory",
        "used": "512MiB",
        "limit": "1GiB",
    }


def test_server_settings() -> None:
    found = ServerSettings.load(
        {"listen": "[::1]:8443", "data_directory": None},
        {"VIRTMGR_DATA_DIRECTORY": "/srv/v", "VIRTMGR_LISTEN": "1.2.3.4:1"},
    )
    assert found.listen == Endpoint("::1", 8443)
    assert str(found.listen) == "[::1]:8443"
    assert found.database == "sqlite:////srv/v/virtmgr.db"
    with pytest.raises(ValueError, match="no address"):
        ServerSettings.load({"listen": "::1"}, {})
    postgresql = {"database": "postgresql:///v", "web_processes": "3"}
    assert (found.web_processes, ServerSettings.load(postgresql, {}).web_processes) == (1, 3)
    for refused in ("2", "0", "65", "many"):
        with pytest.raises(ValueError, match="--web-processes"):
            ServerSettings.load({"web_processes": refused}, {})
    variables = {"VIRTMGR_AGENT_CA_FILE": "/ca", "VIRTMGR_AGENT_RUNTIME": "runc"}
    agent = AgentSettings.load({"server": "https://c:7444/"}, variables)
    assert (agent.server, str(agent.ca_file)) == ("https://c:7444", "/ca")
    assert (agent.runtime, AgentSettings.load({}, {}).runtime) == ("runc", "crun")
    with pytest.raises(ValueError, match="https"):
        AgentSettings.load({"server": "http://c"}, {})
    tunnel = {"VIRTMGR_AGENT_TUNNEL_ADDRESS": "2001:DB8::0:1"}
    assert AgentSettings.load({}, tunnel).tunnel_address == "2001:db8::1"
    for address, why in (("::1", "cannot send to"), ("h1", "--tunnel-address")):
        with pytest.raises(ValueError, match=why):
            AgentSettings.load({"tunnel_address": address}, {})


def test_passwords_stay_out_of_arguments(bare: Run) -> None:
    result = bare("db", "upgrade", "--database", "postgresql+psycopg://u:secret@h/d")
    assert result.exit_code == 2
    assert "--database-file" in result.stderr
    assert "secret" not in result.stderr
