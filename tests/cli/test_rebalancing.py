"""``virtmgr cluster rebalance``: the plan first, then what was confirmed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Response

from tests.cli.conftest import Run
from tests.cli.fake_server import State

PATH = "/api/v1/clusters/c/rebalance"


def load(host: str, vcpus: float, memory: float, workloads: int) -> dict[str, Any]:
    named = {"id": f"id-{host}", "name": host}
    return {"host": named, "vcpus": vcpus, "memory": memory, "disk": 0.1, "workloads": workloads}


PLAN: dict[str, Any] = {
    "policy": "balanced",
    "moves": [
        {
            "workload": {"id": "w1", "name": "web1"},
            "project": {"id": "p1", "name": "blue"},
            "source": {"id": "id-h1", "name": "h1"},
            "target": {"id": "id-h2", "name": "h2"},
            "mode": "live",
            "data": 2**30,
            "downtime": 0.3,
            "stop_timeout": 0,
            "why": "h1 has 90% of its memory claimed, the cluster 50%",
        }
    ],
    "before": {
        "imbalance": 0.2,
        "empty": 1,
        "hosts": [load("h1", 0.5, 0.9, 9), load("h2", 0.0, 0.0, 0), load("h3", 0.5, 0.6, 4)],
    },
    "after": {
        "imbalance": 0.0,
        "empty": 0,
        "hosts": [load("h1", 0.25, 0.45, 8), load("h2", 0.25, 0.45, 1), load("h3", 0.5, 0.6, 4)],
    },
    "reasons": [],
    "why_not": [
        {
            "workload": {"id": "w2", "name": "db1"},
            "project": {"id": "p1", "name": "blue"},
            "host": {"id": "id-h1", "name": "h1"},
            "reason": {
                "code": "pinned",
                "message": "it may only run on host h1",
                "hint": "stop it",
            },
        }
    ],
}
NOTHING = {
    **PLAN,
    "moves": [],
    "after": PLAN["before"],
    "reasons": [{"code": "balanced", "message": "no host is too far", "hint": None}],
    "why_not": [],
}


def would(plan: Any) -> Response:
    text = json.dumps({"dry_run": True, "would": {"plan": plan}})
    return Response(text, content_type="application/json")


def test_the_plan_is_shown(virtmgr: Run, state: State) -> None:
    state.answers.append(would(PLAN))
    result = virtmgr("cluster", "rebalance", "c", "--plan", "--moves", "5", "--cold")
    assert result.exit_code == 0, result.output
    (request,) = state.requests
    assert request[:3] == ("POST", f"{PATH}?dry_run=true", {"moves": 5, "cold": True})
    lines = result.stdout.splitlines()
    assert lines[1].split()[:9] == [
        *("blue", "web1", "h1", "h2", "live", "1GiB", "0.3", "s", "h1"),
    ]
    assert "h1    50% → 25%  90% → 45%  10%   9 → 8" in result.stdout
    assert "h3" not in result.stdout
    assert lines[-1] == "imbalance: 0.20 → 0.00"
    assert "note: db1 stays on h1: it may only run on host h1" in result.stderr
    assert "hint: stop it" in result.stderr


def test_programs_get_the_whole_plan(virtmgr: Run, state: State) -> None:
    state.answers.append(would(PLAN))
    result = virtmgr("cluster", "rebalance", "c", "--plan", "-o", "json")
    assert json.loads(result.stdout) == {"plan": PLAN}


def test_nothing_moves_unconfirmed(virtmgr: Run, state: State) -> None:
    state.answers.append(would(PLAN))
    result = virtmgr("cluster", "rebalance", "c")
    assert result.exit_code == 2
    assert "web1" in result.stderr
    assert "--yes" in result.stderr
    assert len(state.requests) == 1


def test_a_plan_without_moves_ends_there(virtmgr: Run, state: State) -> None:
    state.answers.append(would(NOTHING))
    result = virtmgr("cluster", "rebalance", "c")
    assert result.exit_code == 0
    assert "nothing is to be moved" in result.stderr
    assert "no host is too far" in result.stderr
    assert len(state.requests) == 1


@pytest.mark.parametrize(("state_then", "code"), [("succeeded", 0), ("failed", 1)])
def test_with_yes_it_is_carried_out(virtmgr: Run, state: State, state_then: str, code: int) -> None:
    ended = {"state": state_then, "error": {"code": "not_rebalanced", "detail": "one stayed"}}
    state.answers.append(lambda: state.operation("rebalance", "c", ended, type="cluster"))
    result = virtmgr("cluster", "rebalance", "c", "--yes", "--at-once", "3")
    assert (result.exit_code != 0) == bool(code), result.output
    assert state.requests[0][:3] == ("POST", PATH, {"at_once": 3})


def test_it_is_ended(virtmgr: Run, state: State) -> None:
    state.answers.append(Response("{}", content_type="application/json"))
    assert virtmgr("cluster", "rebalance", "c", "--cancel").exit_code == 0
    assert state.requests[0][:2] == ("POST", f"{PATH}/cancel")
