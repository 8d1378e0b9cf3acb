"""``host upgrade``: one after the other, and no further than the first failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Response

from tests.cli.conftest import Run
from tests.cli.fake_server import NOW, State


def _answer(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")


def _ended(name: str, verb: str = "upgrade", state: str = "succeeded") -> Response:
    error = {"code": "not_upgraded", "detail": "it is not"} if state == "failed" else None
    operation = {
        "id": f"op-{verb}-{name}",
        "verb": verb,
        "target": {"type": "host", "id": f"id-{name}", "name": name},
        "state": state,
        "error": error,
        "created_at": NOW,
    }
    return _answer(operation, 202)


def _asked(state: State) -> list[str]:
    return [path.removeprefix("/api/v1/hosts/") for _, path, _, _ in state.requests]


def test_hosts_are_upgraded_one_after_the_other(virtmgr: Run, state: State, tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("a private key\n")
    state.answers += [_ended("a"), _ended("b")]
    done = virtmgr("host", "upgrade", "a", "b", "-i", str(key))
    assert done.exit_code == 0, done.output
    assert done.stdout == "host a is upgraded\nhost b is upgraded\n"
    assert _asked(state) == ["a/upgrade", "b/upgrade"]
    assert state.requests[0][2] == {"ssh": {"private_key": "a private key\n"}}


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_failure_ends_it_unless_told(virtmgr: Run, state: State, keep_going: bool) -> None:
    state.answers += [_ended("a", state="failed"), _ended("b")]
    more = ["--keep-going"] if keep_going else []
    done = virtmgr("host", "upgrade", "a", "b", *more)
    assert done.exit_code != 0
    assert _asked(state) == ["a/upgrade", *(["b/upgrade"] if keep_going else [])]


def test_all_are_those_that_have_an_agent(virtmgr: Run, state: State) -> None:
    hosts = [{"name": "a", "state": "ready"}, {"name": "b", "state": "install_failed"}]
    state.answers += [_answer({"items": hosts, "next_cursor": None}), _ended("a")]
    assert virtmgr("host", "upgrade", "--all").exit_code == 0
    assert _asked(state)[1:] == ["a/upgrade"]


def test_a_drained_host_is_given_back(virtmgr: Run, state: State) -> None:
    state.answers += [_ended("a", "drain"), _ended("a"), _answer({"name": "a"})]
    assert virtmgr("host", "upgrade", "a", "--drain").exit_code == 0
    assert _asked(state) == ["a/drain", "a/upgrade", "a/uncordon"]


def test_what_does_not_go_together(virtmgr: Run) -> None:
    for wrong in ([], ["a", "--all"], ["--all", "--no-wait"], ["a", "--drain", "--no-wait"]):
        assert virtmgr("host", "upgrade", *wrong).exit_code == 2
