"""Workload commands against a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from flask import Response

from tests.cli.conftest import Run
from tests.cli.fake_server import State, problem


def test_list_follows_pages_and_is_plain(virtmgr: Run, state: State) -> None:
    for number in range(5):
        state.workload(f"web{number}")
    result = virtmgr("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "STATE", "HOST", "IMAGE", "ADDRESSES", "AGE"]
    assert [line.split()[0] for line in lines[1:]] == [f"web{n}" for n in range(5)]
    assert "\x1b" not in result.stdout


def test_list_filters_go_to_the_server(virtmgr: Run, state: State) -> None:
    arguments = ("list", "-A", "--kind", "vm", "--state", "running", "--label", "tier=web")
    assert virtmgr(*arguments, "-o", "json").stdout == "[]\n"
    target = state.requests[-1][1]
    assert target.startswith("/api/v1/workloads?")
    for part in ("kind=vm", "state=running", "label=tier%3Aweb", "limit=500"):
        assert part in target


@pytest.mark.parametrize(
    ("output", "expected"), [("name", "web1\n"), ("wide", "512MiB"), ("yaml", "- id: id-web1")]
)
def test_list_outputs(virtmgr: Run, state: State, output: str, expected: str) -> None:
    state.workload("web1")
    assert expected in virtmgr("ls", "-o", output).stdout


def test_create_sends_only_what_was_given(virtmgr: Run, state: State, tmp_path: Path) -> None:
    variables = tmp_path / "env"
    variables.write_text("# secrets\nKEY=from file\nTZ=file\n")
    result = virtmgr(
        *("create", "web1", "--image", "nginx", "--vcpus", "2", "--memory", "1GiB"),
        *("--port", "8080:80", "--port", "0.0.0.0:53:5353/udp", "--volume", "data:/data:ro"),
        *("--env", "TZ=UTC", "--env-file", str(variables), "-l", "tier=web"),
        *("--network", "default:10.0.0.7", "--require", "arch=x86_64", "-p", "blue"),
        *("--", "sh", "-c", "echo hello"),
    )
    assert (result.exit_code, result.stdout) == (0, "workload web1 created\n")
    method, target, body, headers = state.requests[0]
    assert (method, target) == ("POST", "/api/v1/projects/blue/workloads")
    assert len(headers["idempotency-key"]) >= 32
    assert body == {
        "name": "web1",
        "kind": "container",
        "image": "nginx",
        "labels": {"tier": "web"},
        "command": ["sh", "-c", "echo hello"],
        "env": {"KEY": "from file", "TZ": "UTC"},
        "resources": {"vcpus": 2, "memory": "1GiB"},
        "volumes": [{"volume": "data", "path": "/data", "read_only": True}],
        "nics": [{"network": "default", "address": "10.0.0.7"}],
        "ports": [
            {"host": 8080, "guest": 80},
            {"host": 53, "guest": 5353, "protocol": "udp", "address": "0.0.0.0"},
        ],
        "placement": {"require": {"arch": "x86_64"}},
    }


def test_create_vm_with_user_data(virtmgr: Run, state: State) -> None:
    virtmgr(
        *("create", "db1", "-k", "vm", "-i", "debian", "--user-data", "-", "--no-vnc"),
        *("--disk", "20GiB", "--network", "none", "--stopped"),
        input="#cloud-config\n",
    )
    assert state.requests[0][2] == {
        "name": "db1",
        "kind": "vm",
        "image": "debian",
        "user_data": "#cloud-config\n",
        "state": "stopped",
        "root_disk": {"size": "20GiB"},
        "nics": [],
        "vnc": False,
    }


def test_run_is_an_app_container(virtmgr: Run, state: State) -> None:
    assert virtmgr("run", "library/busybox:1", "--", "sleep", "9").exit_code == 0
    body = state.requests[0][2]
    assert body["name"].startswith("busybox-")
    assert (body["kind"], body["init"], body["command"]) == ("container", "app", ["sleep", "9"])


def test_dry_run_shows_what_would_be(virtmgr: Run, state: State) -> None:
    result = virtmgr("create", "web1", "--image", "nginx", "--dry-run", "-o", "json")
    assert json.loads(result.stdout) == {"host": "host1", "name": "web1"}
    assert not state.workloads


def test_get(virtmgr: Run, state: State) -> None:
    state.workload("web1")
    assert yaml.safe_load(virtmgr("get", "web1").stdout)["id"] == "id-web1"
    assert virtmgr("show", "web1", "-o", "table").stdout.startswith("NAME")


def test_several_are_tried_though_one_fails(virtmgr: Run, state: State) -> None:
    state.workload("a")
    state.workload("c")
    result = virtmgr("delete", "--yes", "a", "b", "c")
    assert result.exit_code == 3
    assert result.stdout == "workload a deleted\nworkload c deleted\n"
    assert "there is no workload b" in result.stderr


def test_delete_asks_and_refuses_where_nobody_is(virtmgr: Run, state: State) -> None:
    state.workload("a")
    result = virtmgr("delete", "a")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert "a" in state.workloads


def test_power_verbs(virtmgr: Run, state: State) -> None:
    state.workload("a")
    for verb, done in (("start", "started"), ("pause", "paused"), ("resume", "resumed")):
        assert virtmgr(verb, "a").stdout == f"workload a {done}\n"
    assert virtmgr("stop", "a", "--grace", "3").stdout == "workload a stopped\n"
    stop = next(r for r in state.requests if "/stop" in r[1])
    assert stop[2] == {"timeout": 3}
    assert virtmgr("workload", "restart", "a", "-f").stdout == "workload a restarted\n"


def test_failed_operation_gives_its_error(virtmgr: Run, state: State) -> None:
    state.workload("a")
    error = {"status": 502, "code": "image_error", "detail": "digest", "hint": "import it again"}
    failed = {"state": "failed", "error": error}

    def answer() -> Response:
        return state.operation("start", "a", {"state": "running"}, failed)

    state.answers.append(answer)
    result = virtmgr("start", "a", "-o", "json")
    assert result.exit_code == 1
    told = json.loads(result.stderr)["error"]
    assert told["code"] == "image_error"
    assert told["detail"] == "start of workload a failed: digest"
    assert told["hint"] == "import it again"


def test_timeout_has_its_own_exit_code(virtmgr: Run, state: State) -> None:
    state.workload("a")
    state.answers.append(lambda: state.operation("start", "a", {"state": "running"}))
    result = virtmgr("start", "a", "--timeout", "0.2")
    assert result.exit_code == 7
    assert "virtmgr operations wait op0" in result.stderr


def test_no_wait(virtmgr: Run, state: State) -> None:
    state.workload("a")
    assert virtmgr("start", "a", "--no-wait").stdout == ("workload a: operation op0 is under way\n")
    assert len(state.requests) == 1


def test_resize_says_what_waits_for_a_restart(virtmgr: Run, state: State) -> None:
    state.workload("a")["status"]["needs_restart"] = ["resources.vcpus"]
    result = virtmgr("resize", "a", "--vcpus", "2", "--memory", "1GiB")
    assert result.stdout == "workload a resized\n"
    assert "resources.vcpus: takes effect after 'virtmgr restart a'" in result.stderr
    assert state.requests[0][2] == {"resources": {"vcpus": 2, "memory": "1GiB"}}
    assert virtmgr("resize", "a").exit_code == 2


def test_limits_of_io_are_set_and_lifted(virtmgr: Run, state: State) -> None:
    state.workload("a")
    virtmgr("resize", "a", "--io-write", "5MiB", "--io-read-ops", "100")
    virtmgr("resize", "a", "--io-unlimited")
    virtmgr("create", "b", "--image", "x", "--io-read", "1MiB")
    limits = {"write_bytes_per_second": "5MiB", "read_operations_per_second": 100}
    sent = [request[2]["resources"] for request in state.requests if request[0] != "GET"]
    assert sent == [{"io": limits}, {"io": None}, {"io": {"read_bytes_per_second": "1MiB"}}]
    assert virtmgr("resize", "a", "--io-read", "1MiB", "--io-unlimited").exit_code == 2


def test_rename(virtmgr: Run, state: State) -> None:
    state.workload("a")
    state.workload("b")["status"]["needs_restart"] = ["name"]
    result = virtmgr("rename", "a", "b")
    assert result.stdout == "workload a renamed; it was a\n"  # this server names it as before
    assert "name: takes effect after 'virtmgr restart b'" in result.stderr
    assert state.requests[0][2] == {"name": "b"}


def test_clone(virtmgr: Run, state: State) -> None:
    state.workload("a", ports=[{"host": 8080, "guest": 80}])
    result = virtmgr("clone", "a", "b", "--start", "--count", "2")
    assert result.exit_code == 0
    assert "published ports stay with a (8080:80)" in result.stderr
    method, target, body, _ = state.requests[1]
    assert (method, target) == ("POST", "/api/v1/projects/default/workloads/a/clone?count=2")
    assert body == {"name": "b", "start": True, "with_volumes": False}


def test_edit_sends_a_merge_patch(
    virtmgr: Run, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.workload("a", labels={"x": "1"}, env={"K": "v"})
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i -e 's/vcpus: 1/vcpus: 3/' -e '/^env:/,$d' \"$1\"\n")
    editor.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    result = virtmgr("edit", "a")
    assert result.exit_code == 0, result.output
    method, _target, body, headers = state.requests[1]
    assert (method, headers["if-match"]) == ("PATCH", '"1"')
    assert body == {"env": None, "resources": None}


def test_refusal_carries_the_placement(virtmgr: Run, state: State) -> None:
    reasons = [{"code": "memory", "message": "4GiB free, 8GiB asked"}]
    verdict = {"host": {"id": "1", "name": "host1"}, "fits": False, "reasons": reasons}
    explanation = {"summary": "no", "hosts": 1, "complete": True, "verdicts": [verdict]}
    state.answers.append(
        problem(
            *(409, "no_placement", "placing workload 'a': no host fits"),
            hint="the explanation says what each host lacks",
            explanation={"explanation": explanation},
        )
    )
    result = virtmgr("create", "a", "--image", "x")
    assert result.exit_code == 4
    assert result.stderr == (
        "error: placing workload 'a': no host fits\n"
        "  host1: 4GiB free, 8GiB asked\n"
        "hint: the explanation says what each host lacks\n"
    )


def test_logs(virtmgr: Run, state: State) -> None:
    state.workload("a")
    assert virtmgr("logs", "a", "--tail", "2").stdout == "one\ntwo\n"
    assert state.requests[-1][1].endswith("/a/logs?tail=2")


def test_explain(virtmgr: Run) -> None:
    text = virtmgr("explain", "workload.resources").stdout
    assert text.startswith("workload.resources (object)")
    assert "vcpus (number)  default: 1" in text
    assert "address (string)" in virtmgr("explain", "workload", "-r").stdout
    missing = virtmgr("explain", "workload.nics.colour")
    assert missing.exit_code == 3
    assert "network" in missing.stderr
