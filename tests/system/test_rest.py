"""The REST API as a script with a token meets it."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .conftest import Product

WORKLOADS = "/projects/default/workloads"
SMALL = {
    "kind": "container",
    "resources": {"vcpus": 0.1, "memory": "16MiB"},
    "root_disk": {"size": "64MiB"},
}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Rest:
    """A caller with a token."""

    server: str
    token: str | None
    tls: ssl.SSLContext = field(repr=False)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """``headers``: underscores stand for dashes."""
        request = urllib.request.Request(f"{self.server}/api/v1{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=60) as response:
                return _reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error.code, error.headers, error.read())

    def events(self, after: int, count: int) -> list[dict[str, Any]]:
        """The next ``count`` events after one, as Server-Sent Events."""
        request = urllib.request.Request(f"{self.server}/api/v1/events")
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Accept", "text/event-stream")
        request.add_header("Last-Event-ID", str(after))
        found: list[dict[str, Any]] = []
        with urllib.request.urlopen(request, context=self.tls, timeout=20) as response:
            while len(found) < count:
                line = response.readline().decode()
                if line.startswith("data:"):
                    found.append(json.loads(line[5:]))
        return found


def _reply(status: int, headers: Any, content: bytes) -> Reply:
    return Reply(status, dict(headers), json.loads(content) if content else None)


@pytest.fixture
def rest(product: Product) -> Rest:
    """As the first administrator, by what ``init`` wrote into the context file."""
    import yaml

    path = Path(product.environment["HOME"]) / ".config/virtmgr/config.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    context = yaml.safe_load(path.read_text())["contexts"]["default"]
    tls = ssl.create_default_context(cafile=context["ca_file"])
    return Rest(context["server"], context["token"], tls)


@pytest.fixture
def one(rest: Rest) -> Iterator[str]:
    """A running container's path."""
    spec = {"name": "rest1", "image": "busybox", "command": ["sleep", "1000"], **SMALL}
    assert rest("POST", f"{WORKLOADS}?wait=60", spec).body["state"] == "succeeded"
    yield f"{WORKLOADS}/rest1"
    rest("DELETE", f"{WORKLOADS}/rest1?wait=60")


@pytest.mark.parametrize(
    ("more", "offending"),
    [
        ({"nope": 1}, "nope"),
        ({"resources": {"nope": 1}}, "resources.nope"),
        ({"firmware": "uefi"}, "firmware"),
        ({"kind": "vm", "command": ["x"]}, "command"),
        ({"volumes": [{"volume": "data"}]}, "volumes.0.path"),
        ({"name": "No_Name"}, "name"),
    ],
)
def test_a_wrong_field_is_named(rest: Rest, more: dict[str, Any], offending: str) -> None:
    spec = {"name": "wrong", "kind": "container", "image": "busybox", **more}
    reply = rest("POST", WORKLOADS, spec)
    assert (reply.status, reply.body["field"]) == (422, offending)
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_a_dry_run_checks_everything_and_does_nothing(rest: Rest) -> None:
    spec = {"name": "dry", "image": "busybox", **SMALL}
    reply = rest("POST", f"{WORKLOADS}?dry_run=true", spec)
    assert (reply.status, reply.body["dry_run"]) == (200, True)
    assert reply.body["would"]["placements"][0]["fitting"] == 1
    spec["resources"] = {"memory": "900GiB"}
    reply = rest("POST", f"{WORKLOADS}?dry_run=true", spec)
    assert (reply.status, reply.body["code"]) == (409, "no_placement")
    verdict = reply.body["explanation"]["verdicts"][0]
    assert (verdict["host"]["name"], verdict["fits"]) == ("local", False)
    assert rest("GET", f"{WORKLOADS}/dry").status == 404


def test_a_repeated_request_is_answered_and_not_repeated(rest: Rest) -> None:
    spec = {"name": "repeated", "image": "busybox", **SMALL}
    try:
        first = rest("POST", WORKLOADS, spec, Idempotency_Key="system-test")
        again = rest("POST", WORKLOADS, spec, Idempotency_Key="system-test")
        assert (first.status, again.status, again.body["id"]) == (202, 202, first.body["id"])
        assert again.headers["Idempotency-Replayed"] == "true"
        other = rest("POST", WORKLOADS, {**spec, "name": "x"}, Idempotency_Key="system-test")
        assert (other.status, other.body["code"]) == (409, "idempotency_mismatch")
    finally:
        rest("DELETE", f"{WORKLOADS}/repeated?wait=60")


def test_a_stale_change_is_refused(rest: Rest, one: str) -> None:
    tag = rest("GET", one).headers["ETag"]
    assert rest("PATCH", one, {"description": "a"}, If_Match=tag).status == 202
    stale = rest("PATCH", one, {"description": "b"}, If_Match=tag)
    assert (stale.status, stale.body["code"]) == (412, "precondition_failed")


def test_verbs_obey_the_state(rest: Rest, one: str) -> None:
    assert rest("POST", f"{one}/pause?wait=30").body["state"] == "succeeded"
    refused = rest("POST", f"{one}/start")
    assert (refused.status, refused.body["explanation"]["state"]) == (409, "paused")
    assert rest("POST", f"{one}/resume?wait=30").body["state"] == "succeeded"
    bare = rest("POST", f"{one}/volumes", {"volume": "data"})
    assert (bare.status, bare.body["field"]) == (422, "volumes.0.path")


@pytest.mark.usefixtures("one")
def test_lists_filter_sort_and_page(rest: Rest) -> None:
    first = rest("GET", "/workloads?limit=2&sort=-name&fields=name,status.state").body
    assert [item["name"] for item in first["items"]] == ["vm1", "sys1"]
    rest_ = rest("GET", f"/workloads?limit=2&sort=-name&cursor={first['next_cursor']}").body
    assert [item["name"] for item in rest_["items"]] == ["rest1", "app1"]
    running = rest("GET", "/workloads?kind=vm&state=running&host=local&fields=name").body["items"]
    assert running == [{"name": "vm1"}]
    assert rest("GET", "/workloads?bogus=1").body["field"] == "bogus"
    assert rest("GET", "/workloads?limit=501").status == 422


@pytest.mark.usefixtures("one")
def test_events_are_resumed_where_they_stopped(rest: Rest) -> None:
    listed = rest("GET", "/events?limit=3").body["items"]
    streamed = rest.events(listed[2]["sequence"], 2)
    assert [each["sequence"] for each in streamed] == [
        listed[1]["sequence"],
        listed[0]["sequence"],
    ]


def test_roles_decide(rest: Rest) -> None:
    project = rest("POST", "/projects", {"name": "elsewhere"})
    user = rest("POST", "/users", {"name": "looker", "password": "correct horse battery"})
    assert (project.status, user.status) == (201, 201)
    try:
        bound = rest(
            "POST", "/role-bindings", {"user": "looker", "role": "viewer", "project": "elsewhere"}
        )
        assert bound.status == 201
        login = rest("POST", "/login", {"name": "looker", "password": "correct horse battery"})
        looker = Rest(rest.server, login.body["token"], rest.tls)
        assert looker("GET", "/projects/elsewhere/workloads").body["items"] == []
        spec = {"name": "x", "image": "busybox"}
        assert looker("POST", "/projects/elsewhere/workloads", spec).status == 403
        assert looker("POST", WORKLOADS, spec).status == 404
        assert looker("GET", f"{WORKLOADS}/app1").status == 404
        assert Rest(rest.server, None, rest.tls)("GET", "/workloads").status == 401
    finally:
        rest("DELETE", "/users/looker")
        rest("DELETE", "/projects/elsewhere")


def test_guessing_passwords_is_slowed(rest: Rest) -> None:
    rest("POST", "/users", {"name": "target", "password": "correct horse battery"})
    try:
        wrong = {"name": "target", "password": "a wrong guess"}
        codes = [rest("POST", "/login", wrong).status for _ in range(12)]
        assert (codes[0], codes[-1]) == (401, 429)
    finally:
        rest("DELETE", "/users/target")


def test_a_quota_holds(rest: Rest) -> None:
    rest("POST", "/projects", {"name": "small"})
    base = "/projects/small/workloads"
    try:
        assert rest("PATCH", "/projects/small/quota", {"limit_workloads": 1}).status == 200
        spec = {"image": "busybox", **SMALL}
        assert rest("POST", f"{base}?wait=60", {"name": "a", **spec}).status == 200
        refused = rest("POST", base, {"name": "b", **spec})
        assert (refused.status, refused.body["code"]) == (409, "quota_exceeded")
    finally:
        rest("DELETE", f"{base}/a?wait=60")
        rest("DELETE", "/projects/small")
