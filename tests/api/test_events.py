"""The event log: pages, and Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.api.contract import PREFIX, Api
from virtmgr.api import events

STREAM = {"Accept": "text/event-stream"}


@contextmanager
def _stream(api: Api, **options: Any) -> Iterator[Iterator[dict[str, str]]]:
    """The events of a stream as they come; comments are given as ``{"comment": …}``."""
    headers = STREAM | {"Authorization": f"Bearer {api.token}"} | options.get("headers", {})
    response = api.app.test_client().get(
        PREFIX + "/events", headers=headers, query_string=options.get("query", {}), buffered=False
    )
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    with closing(response):
        yield _parse(response.iter_encoded())


def _parse(chunks: Iterator[bytes]) -> Iterator[dict[str, str]]:
    for chunk in chunks:
        lines = chunk.decode().strip().split("\n")
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        if "data" in fields:
            yield fields
        elif lines[0].startswith(":"):
            yield {"comment": lines[0][1:].strip()}


def test_pages_newest_first_and_after_oldest_first(api: Api) -> None:
    for name in ("a", "b", "c"):
        api.post("/projects", {"name": name})
    newest = api.get("/events", type="project.created").body["items"]
    assert [event["target"]["name"] for event in newest] == ["c", "b", "a"]
    assert newest[0]["user"]["name"] == "admin"
    first = api.get("/events", type="project.created", after=0, limit=2).body
    assert [event["target"]["name"] for event in first["items"]] == ["a", "b"]
    cursor = first["next_cursor"]
    rest = api.get("/events", type="project.created", after=0, limit=2, cursor=cursor).body
    assert [event["target"]["name"] for event in rest["items"]] == ["c"]
    assert rest["next_cursor"] is None
    paged = api.get("/events", type="project.created", limit=2).body
    older = api.get("/events", type="project.created", limit=2, cursor=paged["next_cursor"]).body
    assert [event["target"]["name"] for event in older["items"]] == ["a"]


def test_a_stream_goes_on_where_it_was_left(api: Api) -> None:
    api.post("/projects", {"name": "a"})
    with _stream(api, query={"after": "0", "type": "project.created"}) as found:
        first = next(found)
    assert first["event"] == "project.created"
    event = json.loads(first["data"])
    assert str(event["sequence"]) == first["id"]
    api.post("/projects", {"name": "b"})
    headers = {"Last-Event-ID": first["id"]}
    with _stream(api, headers=headers, query={"after": "0"}) as found:
        assert json.loads(next(found)["data"])["target"]["name"] == "b"
        api.post("/projects", {"name": "c"})
        assert json.loads(next(found)["data"])["target"]["name"] == "c"


def test_a_new_stream_begins_now(api: Api) -> None:
    api.post("/projects", {"name": "old"})
    with _stream(api) as found:
        api.post("/projects", {"name": "new"})
        assert json.loads(next(found)["data"])["target"]["name"] == "new"


def test_a_stream_shows_only_what_may_be_seen(api: Api, as_role: Callable[..., Api]) -> None:
    for project in ("shop", "other"):
        api.post("/projects", {"name": project})
    viewer = as_role("viewer", "shop")
    start = {"after": str(api.get("/events", limit=1).body["items"][0]["sequence"])}
    for project in ("other", "shop"):
        api.post(f"/projects/{project}/volumes", {"name": "data", "size": "1GiB"})
    with _stream(viewer, query=start) as found:
        assert json.loads(next(found)["data"])["project"]["name"] == "shop"
    listed = viewer.get("/events").body["items"]
    assert {event["project"]["name"] for event in listed} == {"shop"}


def test_idle_streams_are_kept_open(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.0)
    with _stream(api) as found:
        assert next(found) == {"comment": "still here"}


def test_a_stream_ends_with_its_token(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.0)
    made = api.post("/tokens", {"name": "ci"}).body
    with _stream(api.as_token(made["token"]), query={"type": "none"}) as found:
        next(found)
        api.delete(f"/tokens/{made['id']}")
        assert list(found) == []


@pytest.mark.parametrize("number", ["x", "-1", "9" * 30])
def test_a_bad_last_event_id_is_refused(api: Api, number: str) -> None:
    headers = STREAM | {"Last-Event-ID": number}
    refused = api.call("GET", "/events", headers=headers)
    assert (refused.status, refused.code) == (400, "bad_request")


def test_events_of_a_time(api: Api) -> None:
    api.post("/projects", {"name": "early"})
    (early,) = api.get("/events", type="project.created", limit=1).body["items"]
    assert api.get("/events", type="project.created", until=early["at"]).body["items"] == [
        event
        for event in api.get("/events", type="project.created").body["items"]
        if event["at"] < early["at"]
    ]
    found = api.get("/events", type="project.created", since=early["at"]).body["items"]
    assert [event["target"]["name"] for event in found] == ["early"]
    assert api.get("/events", since="yesterday").status == 422
    assert api.get("/events", since="2026-01-01T00:00:00").status == 422, "it lacks a zone"
    for number in ("1700000000", "1.7e9", "-2.2250738585e-313", "1_700_000_000"):
        assert api.get("/events", since=number).status == 422, "seconds are no time"
