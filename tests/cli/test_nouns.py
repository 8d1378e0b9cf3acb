"""The other nouns: what each verb asks of the server, and what it shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Response

from tests.cli.conftest import Run
from tests.cli.fake_server import State

PROJECT = {"id": "p1", "name": "blue"}
USER = {"id": "u1", "name": "ada"}
BINDING = {"id": "b1", "user": USER, "role": "member", "project": PROJECT}


def answer(body: Any, status: int = 200, **headers: str) -> Response:
    if status == 204:
        return Response(status=204)
    return Response(json.dumps(body), status, headers, content_type="application/json")


def page(*items: Any) -> Response:
    return answer({"items": items, "next_cursor": None})


@pytest.mark.parametrize(
    ("arguments", "method", "target", "body"),
    [
        ("project create blue --description x -l a=b", "POST", "/projects",
         {"name": "blue", "description": "x", "labels": {"a": "b"}}),
        ("project edit blue --rename red", "PATCH", "/projects/blue", {"name": "red"}),
        ("user create ada --no-password", "POST", "/users", {"name": "ada"}),
        ("user disable ada", "PATCH", "/users/ada", {"disabled": True}),
        ("role bind ada member -p blue", "POST", "/role-bindings",
         {"user": "ada", "role": "member", "project": "blue"}),
        ("cluster create c --policy pack --overcommit-vcpus 2", "POST", "/clusters",
         {"name": "c", "policy": "pack", "overcommit_vcpus": 2.0}),
        ("host cordon h1", "POST", "/hosts/h1/cordon", None),
        ("host edit h1 -l zone=a -l old=", "PATCH", "/hosts/h1",
         {"labels": {"zone": "a", "old": None}}),
        ("network create lan --ipv4 10.9.0.0/24 -p blue", "POST", "/projects/blue/networks",
         {"name": "lan", "type": "nat", "ipv4": "10.9.0.0/24"}),
        ("volume create data -s 1GiB", "POST", "/projects/default/volumes",
         {"name": "data", "size": "1GiB"}),
        ("volume resize data -s 2GiB", "PATCH", "/projects/default/volumes/data",
         {"size": "2GiB"}),
        ("quota set blue --memory 8GiB --vcpus none", "PATCH", "/projects/blue/quota",
         {"limit_memory": "8GiB", "limit_vcpus": None}),
        ("image import docker://r/library/nginx:1", "POST", "/images/import",
         {"name": "nginx:1", "source": "docker://r/library/nginx:1"}),
        ("image build debian --suite bookworm --kind vm", "POST", "/images/build",
         {"name": "debian-bookworm-vm", "distribution": "debian", "kind": "vm",
          "suite": "bookworm"}),
        ("image edit debian --description x --protected -l a=b -l old=", "PATCH", "/images/debian",
         {"description": "x", "protected": True, "labels": {"a": "b", "old": None}}),
        ("image edit debian --no-protected --rename debian-12", "PATCH", "/images/debian",
         {"name": "debian-12", "protected": False}),
        ("image delete --yes library/nginx:1", "DELETE", "/images/library%2Fnginx%3A1", None),
        ("token revoke --yes t1", "DELETE", "/tokens/t1", None),
        ("operation cancel o1", "POST", "/operations/o1/cancel", None),
        ("operation retry o1 --no-wait", "POST", "/operations/o1/retry", None),
    ],
)  # fmt: skip
def test_requests(
    virtmgr: Run, state: State, arguments: str, method: str, target: str, body: Any
) -> None:
    state.answers.append(answer(None, 204))
    result = virtmgr(*arguments.split(" "))
    assert result.exit_code == 0, result.output
    sent = state.requests[0]
    assert sent[0] == method
    assert sent[2] == body
    from urllib.parse import unquote

    assert unquote(sent[1]) == unquote("/api/v1" + target)


def test_lists(virtmgr: Run, state: State) -> None:
    host = {
        "id": "h",
        "name": "h1",
        "state": "ready",
        "cluster": {"id": "c", "name": "default"},
        "architecture": "x86_64",
        "capacity": {"vcpus": 8.0, "memory": 2**34, "disk": 2**40},
        "claimed": {"vcpus": 2.5, "memory": 2**31, "disk": 0},
    }
    state.answers.append(page(host))
    lines = virtmgr("hosts", "list").stdout.splitlines()
    assert lines[1].split() == [
        *("h1", "ready", "default", "x86_64", "2.5/8", "2GiB/16GiB", "0B/1TiB", "-", "-", "-"),
    ]
    state.answers.append(page(BINDING, {**BINDING, "project": None, "role": "viewer"}))
    lines = virtmgr("role", "list").stdout.splitlines()
    assert lines[1].split() == ["b1", "ada", "member", "blue", "-"]
    assert "(everywhere)" in lines[2]
    state.answers.append(page({"id": "v", "name": "d", "project": PROJECT, "size": 2**30}))
    assert virtmgr("volume", "list", "-A").stdout.splitlines()[1].split()[:3] == [
        *("blue", "d", "1GiB"),
    ]


def test_a_token_is_all_there_is_on_standard_output(virtmgr: Run, state: State) -> None:
    state.answers.append(answer({"id": "t", "name": "ci", "token": "vmt_new"}, 201))
    result = virtmgr("token", "create", "ci", "--role", "viewer", "--expires", "never")
    assert result.stdout == "vmt_new\n"
    assert "only time" in result.stderr
    assert state.requests[0][2] == {"name": "ci", "role": "viewer"}
    assert "idempotency-key" not in state.requests[0][3]
    state.answers.append(answer({"host": {}, "join_token": "vmj_new"}, 201))
    assert virtmgr("host", "token", "h1").stdout == "vmj_new\n"


def test_a_host_joins_again_only_if_that_is_said(virtmgr: Run, state: State) -> None:
    problem = {"status": 409, "code": "name_taken", "detail": "host 'h1' exists"}
    state.answers.append(answer(problem, 409))
    refused = virtmgr("host", "token", "h1")
    assert refused.exit_code != 0
    assert "--again" in refused.stderr
    state.answers.append(answer({"id": "1", "name": "h1", "join_token": "vmj_again"}))
    assert virtmgr("host", "token", "h1", "--again").stdout == "vmj_again\n"
    assert state.requests[-1][:2] == ("POST", "/api/v1/hosts/h1/join-token")
    assert virtmgr("host", "token", "h1", "--again", "--cluster", "c").exit_code == 2
    state.answers.append(answer({"id": "1", "name": "h1", "join_token": "vmj_again"}))
    virtmgr("host", "token", "h1", "--again", "--another-machine")
    assert state.requests[-1][2] == {"another_machine": True}
    assert virtmgr("host", "token", "h1", "--another-machine").exit_code == 2


def test_unbind_finds_the_binding(virtmgr: Run, state: State) -> None:
    state.answers += [page(BINDING), answer(None, 204)]
    assert virtmgr("role", "unbind", "ada", "member", "-p", "blue").exit_code == 0
    assert state.requests[-1][1] == "/api/v1/role-bindings/b1"
    state.answers.append(page(BINDING))
    assert virtmgr("role", "unbind", "ada", "member").exit_code == 3


def test_aliases_are_added_and_taken(virtmgr: Run, state: State) -> None:
    state.answers += [answer({"aliases": ["a", "b"]}, ETag='"3"'), answer({})]
    assert virtmgr("image", "alias", "nginx", "c", "-d", "a").stdout == "b\nc\n"
    assert state.requests[1][2] == {"aliases": ["b", "c"]}
    assert state.requests[1][3]["if-match"] == '"3"'


def test_the_control_plane_asks_image_servers(virtmgr: Run, state: State) -> None:
    aliases = ["debian/12", "debian/bookworm"]
    offer = {"alias": "debian/12", "aliases": aliases, "type": "container",
             "architecture": "x86_64", "version": "20260101", "size": 1024,
             "description": "Debian"}  # fmt: skip
    state.answers += [answer({"items": [offer], "total": 3})] * 2
    asked = ("image", "search", "simplestreams:https://images.example/", "debian", "12")
    assert json.loads(virtmgr(*asked, "-o", "json").stdout)[0]["aliases"] == aliases
    shown = virtmgr(*asked)
    assert "debian/12" in shown.stdout
    assert "2 more are not shown" in shown.stderr
    method, target, body, _ = state.requests[1]
    assert (method, target) == ("POST", "/api/v1/images/search")
    assert body == {"server": "https://images.example", "words": ["debian", "12"], "limit": 500}


def test_what_a_prune_removes(virtmgr: Run, state: State) -> None:
    pruned = {
        "hosts": [{"host": {"id": "1", "name": "h1"},
                   "images": [{"id": "2", "name": "debian", "size": 3072}]}],
        "store": {"blobs": 2, "leftovers": 1, "size": 1024, "busy": False},
        "size": 4096,
    }  # fmt: skip
    state.answers += [answer({"dry_run": True, "would": pruned}), answer(pruned)]
    assert virtmgr("image", "prune", "--dry-run").stdout == (
        "host h1: debian (3KiB)\n"
        "control plane: 2 unused blobs, 1 leftovers of uploads (1KiB)\n"
        "4KiB would be freed\n"
    )
    assert state.requests[0][1].endswith("/images/prune?dry_run=true")
    assert virtmgr("image", "prune", "--host", "h1").stdout.endswith("4KiB are being freed\n")
    assert state.requests[1][2] == {"host": "h1"}


def test_quota_and_placement_tables(virtmgr: Run, state: State) -> None:
    state.answers.append(answer({"limit_vcpus": 4.0, "used_vcpus": 1.5}))
    assert "vcpus      1.5   4\n" in virtmgr("quota", "show", "blue").stdout
    verdicts = [
        {"host": {"id": "1", "name": "h1"}, "fits": True, "score": 0.5, "scores": {"cpu": 0.5}},
        {"host": {"id": "2", "name": "h2"}, "fits": False,
         "reasons": [{"code": "memory", "message": "1GiB free"}]},
    ]  # fmt: skip
    explanation = {"summary": "placed on h1", "hosts": 2, "complete": True, "verdicts": verdicts}
    state.answers.append(answer({"host": None, "explanation": explanation}))
    assert virtmgr("placement", "w").stdout == (
        "placed on h1\n"
        "HOST  FITS  SCORE  WHY\n"
        "h1    yes   0.5    cpu 0.5\n"
        "h2    no    -      1GiB free\n"
    )
    state.answers.append(answer({"host": None, "explanation": None}))
    assert "not been placed" in virtmgr("placement", "w").stdout


def test_dry_run_of_a_delete(virtmgr: Run, state: State) -> None:
    state.answers.append(answer({"dry_run": True, "would": {"name": "lan"}}))
    assert virtmgr("network", "delete", "lan", "--dry-run").stdout == "name: lan\n"
    assert state.requests[0][1].endswith("?dry_run=true")
