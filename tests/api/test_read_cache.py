"""Reads that are answered from memory never show what is not so any more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from virtmgr.api import read_cache
from virtmgr.api.idempotency import Remembered
from virtmgr.api.read_cache import ReadCache
from virtmgr.services.container import Services

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)


def answer(body: str) -> Remembered:
    return Remembered(200, body, None, None)


def test_a_repeated_read_does_without_a_unit_of_work(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.get("/projects")  # which notes that the token was used
    first = api.get("/projects")
    with monkeypatch.context() as patch:
        patch.setattr(type(services.units), "__call__", None)
        assert api.get("/projects").body == first.body


def test_each_change_is_seen_at_once(api: Api) -> None:
    for number in range(3):
        assert len(api.get("/projects").body["items"]) == number + 1
        assert api.post("/projects", {"name": f"p{number}"}).status == 201


def test_every_token_has_its_own_and_a_revoked_one_nothing(
    api: Api, as_role: Callable[..., Api]
) -> None:
    names = {each.get("/whoami").body["user"]["name"] for each in (api, as_role(None))}
    assert len(names) == 2
    made = api.post("/tokens", {"name": "short"}).body
    short = api.as_token(made["token"])
    assert short.get("/projects").status == 200
    assert api.delete(f"/tokens/{made['id']}").status == 204
    assert short.get("/projects").status == 401


def test_a_token_that_expires_is_refused_though_nothing_was_committed(
    api: Api, clock: StillClock
) -> None:
    expires = clock.now() + timedelta(seconds=2)
    made = api.post("/tokens", {"name": "short", "expires_at": expires.isoformat()}).body
    short = api.as_token(made["token"])
    assert short.get("/projects").status == 200
    clock.advance(seconds=3)
    assert short.get("/projects").status == 401


def test_an_answer_is_good_for_its_stamp_and_its_time() -> None:
    cache = ReadCache()
    cache.keep(("t", "/a"), 1, NOW, LATER, answer("x"))
    assert cache.find(("t", "/a"), 1, NOW) == answer("x")
    assert cache.find(("u", "/a"), 1, NOW) is None
    assert cache.find(("t", "/a"), 1, LATER) is None
    cache.keep(("t", "/a"), 1, NOW, LATER, answer("x"))
    assert cache.find(("t", "/a"), 2, NOW) is None
    assert cache.find(("t", "/a"), 1, NOW) is None  # what was not good is not kept


def test_what_was_not_asked_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_cache, "_MOST_CHARACTERS", 20)
    monkeypatch.setattr(read_cache, "_LONGEST", 10)
    cache = ReadCache()
    cache.keep(("t", "/huge"), 1, NOW, LATER, answer("x" * 11))
    for path in ("/a", "/b"):
        cache.keep(("t", path), 1, NOW, LATER, answer("x" * 10))
    assert cache.find(("t", "/a"), 1, NOW) is not None
    cache.keep(("t", "/c"), 1, NOW, LATER, answer("x" * 10))
    found = {path: cache.find(("t", path), 1, NOW) for path in ("/huge", "/a", "/b", "/c")}
    assert [path for path, kept in found.items() if kept is not None] == ["/a", "/c"]


def test_what_is_over_is_not_kept_until_it_is_asked_for_again() -> None:
    cache = ReadCache()
    for number in range(10):
        cache.keep(("t", f"/{number}"), number, NOW, LATER, answer("x"))
    assert len(cache) == 1  # something was committed since the others were made
    cache.keep(("t", "/later"), 9, LATER, LATER + timedelta(seconds=5), answer("x"))
    assert len(cache) == 1
