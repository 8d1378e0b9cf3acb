"""``host add``: keys of ssh servers are agreed on first, and secrets come from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Response

from tests.cli.conftest import Run
from tests.cli.fake_server import NOW, State
from virtmgr.cli import host_add

_KEY = "SHA256:" + 43 * "A"
_OTHER = "SHA256:" + 43 * "B"


def _answer(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")


def _scanned(fingerprint: str = _KEY) -> Response:
    return _answer(
        {"address": "n", "port": 22, "keys": [{"type": "ssh-ed25519", "fingerprint": fingerprint}]}
    )


def _begun(name: str) -> Response:
    operation = {
        "id": f"op-{name}",
        "verb": "enroll",
        "target": {"type": "host", "id": f"id-{name}", "name": name},
        "state": "succeeded",
        "created_at": NOW,
    }
    return _answer(operation, 202)


def _asked(state: State) -> list[Any]:
    return [body for _, path, body, _ in state.requests if path.endswith("/hosts")]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "id"
    file.write_text("a private key\n")
    return file


def test_a_key_that_was_given_is_compared_with_what_is_shown(
    virtmgr: Run, state: State, key: Path
) -> None:
    state.answers += [_scanned(), _begun("node1")]
    arguments = ("host", "add", "Node1.example.org", "-i", str(key), "-l", "rack=r1", "--no-vms")
    done = virtmgr(*arguments, "--accept-new-host-key", _KEY)
    assert (done.exit_code, done.stdout) == (0, "host node1 is ready\n"), done.output
    assert _asked(state) == [
        {
            "name": "node1",
            "address": "Node1.example.org",
            "ssh": {"private_key": "a private key\n"},
            "host_key": _KEY,
            "labels": {"rack": "r1"},
            "vms": False,
        }
    ]
    headers = [headers for _, path, _, headers in state.requests if path.endswith("/hosts")]
    assert "idempotency-key" not in headers[0]


def test_another_key_is_not_asked_about(virtmgr: Run, state: State, key: Path) -> None:
    state.answers.append(_scanned(_OTHER))
    done = virtmgr("host", "add", "node1", "-i", str(key), "--accept-new-host-key", _KEY)
    assert done.exit_code != 0
    assert _OTHER in done.stderr
    assert _asked(state) == []


def test_without_a_terminal_nothing_is_trusted(virtmgr: Run, state: State, key: Path) -> None:
    state.answers.append(_scanned())
    done = virtmgr("host", "add", "node1", "-i", str(key))
    assert done.exit_code == 2
    assert _KEY in done.stderr
    assert _asked(state) == []


@pytest.mark.parametrize(("typed", "agreed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_at_a_terminal_the_key_is_shown_and_asked_about(
    virtmgr: Run,
    state: State,
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    agreed: bool,
) -> None:
    monkeypatch.setattr(host_add, "somebody_is_there", lambda: True)
    state.answers += [_scanned(), _begun("node1")]
    done = virtmgr("host", "add", "node1", "-i", str(key), input=typed)
    assert _KEY in done.stderr
    assert bool(_asked(state)) is agreed


def test_an_inventory_is_taken_whole_and_one_failure_keeps_nobody(
    virtmgr: Run, state: State, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        f"all: {{vars: {{virtmgr_host_key: '{_KEY}', ansible_password: hunter2}}, "
        "hosts: {node1: , node2: {ansible_user: joe}}}\n"
    )
    taken = {"status": 409, "code": "name_taken", "detail": "host 'node1' exists"}
    state.answers += [_answer(taken, 409), _begun("node2")]
    done = virtmgr("host", "add", "--from-inventory", str(inventory))
    assert done.exit_code != 0
    assert "host node1" in done.stderr
    assert "host node2 is ready" in done.stdout
    assert [body["ssh"] for body in _asked(state)] == [
        {"password": "hunter2"},
        {"user": "joe", "password": "hunter2"},
    ]


def test_there_must_be_a_way_to_log_in(virtmgr: Run, state: State) -> None:
    state.answers.append(_scanned())
    done = virtmgr("host", "add", "node1", "--accept-new-host-key", _KEY)
    assert "--key-file" in done.stderr
    assert _asked(state) == []


@pytest.mark.parametrize(
    "arguments", [("add",), ("add", "a", "b", "--name", "c"), ("add", "n", "--ask-password")]
)
def test_what_makes_no_sense_is_refused(virtmgr: Run, arguments: tuple[str, ...]) -> None:
    assert virtmgr("host", *arguments).exit_code == 2


def test_a_retry_sends_what_is_given_and_nothing_else(
    virtmgr: Run, state: State, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("hunter2\n")
    state.answers += [_begun("node1"), _begun("node1")]
    assert virtmgr("host", "retry", "node1").exit_code == 0
    assert virtmgr("host", "retry", "node1", "--password-file", str(password)).exit_code == 0
    bodies = [body for _, path, body, _ in state.requests if path.endswith("/retry")]
    assert bodies == [{}, {"ssh": {"password": "hunter2"}}]


def test_a_log_is_followed_to_its_end(virtmgr: Run, state: State) -> None:
    def lines(texts: dict[int, str], finished: bool) -> Response:
        items = [{"sequence": n, "at": NOW, "text": text} for n, text in texts.items()]
        return _answer({"items": items, "finished": finished})

    state.answers += [
        lines({1: "one"}, False),
        lines({}, False),
        lines({2: "two\x1b[31m"}, True),
    ]
    done = virtmgr("operation", "log", "-f", "op-1")
    assert [line.split(" ", 2)[2] for line in done.stdout.splitlines()] == ["one", "two [31m"]
