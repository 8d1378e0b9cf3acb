"""The conventions of docs/api.md: lists, dry run, idempotency, preconditions, strict JSON."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.conftest import StillClock
from tests.api.contract import Api
from virtmgr.api.merge_patch import Patch
from virtmgr.api.problems import InvalidFields
from virtmgr.domain.difference import merged
from virtmgr.domain.workload import Kind, WorkloadSpec

JSON_TYPE = {"Content-Type": "application/json"}


def _names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


# ---- lists


def test_pages_cover_a_list_once(api: Api) -> None:
    for number in range(7):
        api.post("/projects", {"name": f"p{number}"})
    found: list[str] = []
    cursor = None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = api.get("/projects", **query).body
        found += _names(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ["default", *(f"p{number}" for number in range(7))]


def test_sort_text_labels_and_fields(api: Api) -> None:
    api.post("/projects", {"name": "web", "labels": {"tier": "front", "zone": "a"}})
    api.post("/projects", {"name": "webshop", "labels": {"tier": "front", "zone": "b"}})
    assert _names(api.get("/projects", sort="-name").body["items"])[0] == "webshop"
    assert _names(api.get("/projects", q="WEB").body["items"]) == ["web", "webshop"]
    labelled = api.get("/projects", label=["tier:front", "zone:b"])
    assert _names(labelled.body["items"]) == ["webshop"]
    sparse = api.get("/projects", fields="name,labels.zone", q="webshop")
    assert sparse.body["items"] == [{"name": "webshop", "labels": {"zone": "b"}}]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"sort": "no_such"}, "sort"),
        ({"label": "nocolon"}, "label"),
        ({"fields": "no_such"}, "fields"),
        ({"fields": "no_such", "q": "nothing-is-called-so"}, "fields"),
        ({"fields": ","}, "fields"),
    ],
)
def test_bad_list_parameters_are_named(api: Api, query: dict[str, Any], field: str) -> None:
    refused = api.get("/projects", **query)
    assert refused.status == 422
    assert refused.body["field"].startswith(field)


def test_inner_fields_are_known_too(api: Api) -> None:
    refused = api.get("/workloads", fields="name,status.no_such")
    assert (refused.status, refused.body["field"]) == (422, "fields")
    assert "state" in refused.body["hint"]
    assert api.get("/workloads", fields="host.name,nics.addresses,labels.any").status == 200
    assert api.get("/events", fields="no_such").status == 422


# ---- changes


def test_unknown_fields_are_refused_without_their_values(api: Api) -> None:
    refused = api.post("/users", {"name": "eve", "password": "short-secret", "admin": True})
    assert refused.status == 422
    assert refused.body["errors"][0]["field"] == "admin"
    short = api.post("/users", {"name": "eve", "password": "Top5ecret"})
    assert (short.status, short.body["field"]) == (422, "password")
    assert "Top5ecret" not in json.dumps(short.body)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/users", {"name": "eve", "disabled": 0}, "disabled"),
        ("/projects", {"name": "shop", "labels": {"tier": {}}}, "labels.tier"),
        ("/projects", {"name": "shop", "labels": {"tier": None}}, "labels.tier"),
        ("/projects", {"name": "shop", "description": 1}, "description"),
    ],
)
def test_nothing_is_taken_for_what_it_is_not(
    api: Api, path: str, body: dict[str, Any], field: str
) -> None:
    refused = api.post(path, body)
    assert (refused.status, refused.body["field"]) == (422, field)


def test_what_is_wrong_is_said_without_types_of_python(api: Api) -> None:
    refused = api.post("/users", {"name": "ada", "password": "short"})
    assert refused.status == 422
    assert refused.body["errors"][0]["message"] == "it should have at least 12 characters"


def test_a_dry_run_does_nothing(api: Api) -> None:
    tried = api.post("/projects", {"name": "shop"}, query={"dry_run": "true"})
    assert tried.status == 200
    assert tried.body["dry_run"] is True
    assert tried.body["would"]["name"] == "shop"
    assert api.get("/projects/shop").status == 404
    assert api.delete("/projects/default", query={"dry_run": "true"}).status == 200
    assert api.get("/projects/default").status == 200
    assert api.get("/events", type="project.created").body["items"] == []


def test_a_dry_run_refuses_like_the_change(api: Api) -> None:
    refused = api.post("/projects", {"name": "default"}, query={"dry_run": "true"})
    assert (refused.status, refused.code) == (409, "name_taken")


def test_a_dry_run_knows_no_key(api: Api) -> None:
    key = {"Idempotency-Key": "one"}
    assert api.post("/projects", {"name": "shop"}, headers=key).status == 201
    query = {"dry_run": "true"}
    refused = api.post("/projects", {"name": "shop"}, headers=key, query=query)
    assert (refused.status, refused.code) == (409, "name_taken")
    tried = api.post("/projects", {"name": "other"}, headers=key, query=query)
    assert tried.status == 200
    assert "Idempotency-Replayed" not in tried.headers


def test_a_stale_version_is_refused(api: Api) -> None:
    shown = api.get("/projects/default")
    etag = shown.headers["ETag"]
    assert etag == '"1"'
    changed = api.patch("/projects/default", {"description": "a"}, headers={"If-Match": etag})
    assert (changed.status, changed.headers["ETag"]) == (200, '"2"')
    stale = api.patch("/projects/default", {"description": "b"}, headers={"If-Match": etag})
    assert (stale.status, stale.code) == (412, "precondition_failed")
    assert api.delete("/projects/default", headers={"If-Match": 'W/"2"'}).status == 412
    assert api.get("/projects/default").body["description"] == "a"
    for good in ("*", '"1", "2"'):
        answer = api.patch("/projects/default", {}, headers={"If-Match": good})
        assert answer.status == 200


def test_if_match_is_never_ignored(api: Api) -> None:
    refused = api.post("/projects", {"name": "shop"}, headers={"If-Match": '"1"'})
    assert refused.status == 422
    assert api.get("/projects/shop").status == 404


# ---- idempotency


def test_the_first_answer_is_given_again(api: Api, clock: StillClock) -> None:
    key = {"Idempotency-Key": "one"}
    first = api.post("/projects", {"name": "shop"}, headers=key)
    again = api.post("/projects", {"name": "shop"}, headers=key)
    assert (first.status, again.status) == (201, 201)
    assert first.body == again.body
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(api.get("/events", type="project.created").body["items"]) == 1
    other = api.post("/projects", {"name": "shop2"}, headers=key)
    assert (other.status, other.code) == (409, "idempotency_mismatch")
    clock.advance(hours=25)
    assert api.post("/projects", {"name": "shop2"}, headers=key).status == 201


def test_a_failure_is_not_kept(api: Api) -> None:
    key = {"Idempotency-Key": "one"}
    assert api.post("/projects", {"name": "default"}, headers=key).status == 409
    assert api.post("/projects", {"name": "shop"}, headers=key).status == 201


def test_a_secret_is_not_kept_for_a_repeat(api: Api) -> None:
    key = {"Idempotency-Key": "one"}
    first = api.post("/tokens", {"name": "ci"}, headers=key)
    again = api.post("/tokens", {"name": "ci"}, headers=key)
    assert first.body["token"].startswith("vmt_")
    assert again.body == first.body | {"token": None}


def test_repeats_at_the_same_time_have_one_effect(api: Api) -> None:
    answers = []

    def make() -> None:
        body = {"name": "shop"}
        answers.append(api.post("/projects", body, headers={"Idempotency-Key": "one"}))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["id"] for answer in answers}) == 1
    assert len(api.get("/events", type="project.created").body["items"]) == 1


def test_keys_of_two_users_are_apart(api: Api, as_role: Any) -> None:
    key = {"Idempotency-Key": "one"}
    assert api.post("/projects", {"name": "a"}, headers=key).status == 201
    assert as_role("operator").post("/projects", {"name": "b"}, headers=key).status == 201


# ---- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"name": "a", "name": "b"}',
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"description": "\\u0000", "name": "a"}',
        b'{"name": NaN}',
        b'{"name": 1e999}',
        b"[" * 70 + b"]" * 70,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"name": ' + b"9" * 5000 + b"}",
    ],
)
def test_malformed_bodies_are_bad_requests(api: Api, body: bytes) -> None:
    refused = api.post("/projects", data=body, headers=JSON_TYPE)
    assert (refused.status, refused.code) == (400, "bad_request")


def test_bodies_of_other_types_and_sizes_are_refused(api: Api) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert api.post("/projects", data=b"name=a", headers=form).status == 415
    assert api.post("/projects", data=b"name=a").status == 415
    large = b'{"name": "' + b"a" * 5 * 1024**2 + b'"}'
    assert api.post("/projects", data=large, headers=JSON_TYPE).status == 413
    assert api.post("/hosts/x/cordon", {"force": True}).status == 422
    assert api.post("/projects", data=b"[]", headers=JSON_TYPE).status == 422
    assert api.patch("/projects/default", [1]).status == 422


# ---- problems


def test_a_problem_explains_itself(api: Api) -> None:
    refused = api.post("/projects", {"name": "Not A Name"}, headers={"X-Request-ID": "abc"})
    assert refused.headers["Content-Type"] == "application/problem+json"
    problem = refused.body
    assert (problem["status"], problem["title"]) == (422, "Unprocessable Entity")
    assert (problem["code"], problem["field"]) == ("invalid_request", "name")
    assert problem["type"].endswith("/invalid_request")
    assert problem["hint"]
    assert problem["request_id"] == refused.headers["X-Request-ID"] == "abc"


def test_a_defect_tells_nothing_but_its_number(api: Api, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr("virtmgr.services.projects.list_", broken)
    api.app.config["PROPAGATE_EXCEPTIONS"] = False
    failed = api.get("/projects")
    assert (failed.status, failed.code) == (500, "internal_error")
    assert "1234" not in json.dumps(failed.body)
    assert failed.body["request_id"]


# ---- merge patch


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_is_the_rfcs(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(_JSON, _JSON)
def test_merging_twice_is_merging_once(target: Any, patch: Any) -> None:
    once = merged(target, patch)
    assert merged(once, patch) == once


def test_a_patch_cannot_remove_what_no_resource_has(api: Api) -> None:
    refused = api.patch("/projects/default", {"descripton": None})
    assert refused.status == 422
    assert refused.body["errors"][0]["field"] == "descripton"
    assert api.patch("/projects/default", {"description": None}).status == 200


def test_nor_deeper_inside() -> None:
    with pytest.raises(InvalidFields) as refused:
        Patch({"resources": {"memry": None}}).apply(WorkloadSpec(name="a", kind=Kind.VM, image="a"))
    assert refused.value.field == "resources.memry"
