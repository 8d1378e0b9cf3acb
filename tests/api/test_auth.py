"""Tokens, log-in, users and role bindings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from virtmgr.services import auth
from virtmgr.services.container import Services

PASSWORD = "correct horse battery"


@pytest.fixture
def alice(api: Api) -> str:
    assert api.post("/users", {"name": "alice", "password": PASSWORD}).status == 201
    body = {"user": "alice", "role": "viewer", "project": "default"}
    assert api.post("/role-bindings", body).status == 201
    return "alice"


def _log_in(api: Api, name: str, password: str) -> int:
    return api.as_token(None).post("/login", {"name": name, "password": password}).status


def test_a_password_gives_a_token(api: Api, alice: str, clock: StillClock) -> None:
    made = api.as_token(None).post("/login", {"name": alice, "password": PASSWORD})
    assert made.status == 200
    own = api.as_token(made.body["token"])
    who = own.get("/whoami").body
    assert who["user"]["name"] == alice
    assert [(role["role"], role["project"]["name"]) for role in who["roles"]] == [
        ("viewer", "default")
    ]
    clock.advance(hours=13)
    expired = own.get("/whoami")
    assert (expired.status, expired.code) == (401, "token_expired")


def test_log_in_tells_nothing_of_users(api: Api, alice: str) -> None:
    anonymous = api.as_token(None)
    wrong = anonymous.post("/login", {"name": alice, "password": "wrong"})
    unknown = anonymous.post("/login", {"name": "nobody", "password": "wrong"})
    assert wrong.status == unknown.status == 401
    assert wrong.body["detail"] == unknown.body["detail"]
    assert wrong.code == "login_failed"


def test_failures_lock_a_user_for_a_while(api: Api, alice: str, clock: StillClock) -> None:
    assert [_log_in(api, alice, "wrong") for _ in range(5)] == [401] * 5
    assert _log_in(api, alice, PASSWORD) == 429
    clock.advance(seconds=31)
    assert _log_in(api, alice, "wrong") == 401
    clock.advance(seconds=31)
    assert _log_in(api, alice, PASSWORD) == 429  # twice as long now
    clock.advance(seconds=31)
    assert _log_in(api, alice, PASSWORD) == 200
    assert _log_in(api, alice, "wrong") == 401
    assert _log_in(api, alice, PASSWORD) == 200


def test_a_new_password_lifts_the_lock(api: Api, alice: str) -> None:
    for _ in range(6):
        _log_in(api, alice, "wrong")
    locked = api.get(f"/users/{alice}").body
    assert locked["locked_until"] is not None
    assert api.put(f"/users/{alice}/password", {"password": "another good one"}).status == 200
    assert _log_in(api, alice, "another good one") == 200
    assert _log_in(api, alice, PASSWORD) == 401


def test_one_may_set_ones_own_password_only(api: Api, alice: str) -> None:
    made = api.as_token(None).post("/login", {"name": alice, "password": PASSWORD})
    own = api.as_token(made.body["token"])
    assert own.put(f"/users/{alice}/password", {"password": "another good one"}).status == 200
    assert own.put("/users/admin/password", {"password": "another good one"}).status == 403


def test_a_disabled_user_is_out_at_once(api: Api, alice: str) -> None:
    made = api.post("/tokens", {"name": "ci", "user": alice})
    own = api.as_token(made.body["token"])
    assert own.get("/projects").status == 200
    api.patch(f"/users/{alice}", {"disabled": True})
    assert own.get("/projects").status == 401
    assert _log_in(api, alice, PASSWORD) == 401


def test_a_revoked_token_is_out_at_once(api: Api, alice: str) -> None:
    made = api.post("/tokens", {"name": "ci", "user": alice}).body
    assert "token" not in api.get(f"/tokens/{made['id']}").body
    assert api.as_token(made["token"]).delete(f"/tokens/{made['id']}").status == 204
    assert api.as_token(made["token"]).get("/whoami").status == 401


def test_a_token_can_only_narrow(api: Api, as_role: Callable[..., Api]) -> None:
    api.post("/projects", {"name": "shop"})
    operator = as_role("operator")
    made = operator.post("/tokens", {"name": "ci", "role": "viewer", "project": "shop"})
    narrow = api.as_token(made.body["token"])
    assert [item["name"] for item in narrow.get("/projects").body["items"]] == ["shop"]
    assert narrow.get("/projects/default").status == 404
    assert narrow.post("/projects/shop/volumes", {"name": "a", "size": "1GiB"}).status == 403
    assert narrow.post("/tokens", {"name": "wider"}).status == 403
    wide = operator.post("/tokens", {"name": "boss", "role": "admin"}).body["token"]
    assert api.as_token(wide).get("/users").status == 403


def test_tokens_of_others_are_not_there(api: Api, as_role: Callable[..., Api]) -> None:
    mine = api.get("/tokens").body["items"][0]
    stranger = as_role("operator")
    assert stranger.get(f"/tokens/{mine['id']}").status == 404
    assert stranger.delete(f"/tokens/{mine['id']}").status == 404
    assert [item["name"] for item in stranger.get("/tokens").body["items"]] == ["test"]
    assert stranger.get("/tokens", user="admin").status == 404
    assert stranger.post("/tokens", {"name": "x", "user": "admin"}).status == 403
    assert len(api.get("/tokens").body["items"]) == 2


def test_use_is_noted_once_a_minute(api: Api, clock: StillClock) -> None:
    made = api.post("/tokens", {"name": "ci"}).body
    own = api.as_token(made["token"])
    own.get("/whoami")
    first = api.get(f"/tokens/{made['id']}").body["last_used_at"]
    clock.advance(seconds=59)
    own.get("/whoami")
    assert api.get(f"/tokens/{made['id']}").body["last_used_at"] == first
    clock.advance(seconds=2)
    own.get("/whoami")
    assert api.get(f"/tokens/{made['id']}").body["last_used_at"] != first


def test_secrets_are_kept_as_hashes_only(api: Api, services: Services) -> None:
    with services.units(read_only=True) as uow:
        shown = uow.tokens.shown(auth.hash_secret(str(api.token)))
    assert shown is not None
    assert str(api.token) not in repr(shown)


def test_the_last_administrator_stays(api: Api, alice: str) -> None:
    refused = api.patch("/users/admin", {"disabled": True})
    assert (refused.status, refused.code) == (409, "last_admin")
    assert api.delete("/users/admin").status == 409
    binding = api.get("/role-bindings", user="admin").body["items"][0]
    assert api.delete(f"/role-bindings/{binding['id']}").status == 409
    api.post("/role-bindings", {"user": alice, "role": "admin"})
    assert api.delete(f"/role-bindings/{binding['id']}").status == 204


def test_initialising_twice_makes_nothing(api: Api, services: Services) -> None:
    with services.units() as uow:
        assert auth.initialise(uow, services.clock) is None
    network = api.get("/projects/default/networks/default").body
    assert network["project"] is None
    assert network["ipv6"].startswith("fd")


def test_a_session_ends_when_it_is_not_used(api: Api, alice: str, clock: StillClock) -> None:
    asked = {"name": alice, "password": PASSWORD, "idle_seconds": 1800}
    own = api.as_token(api.as_token(None).post("/login", asked).body["token"])
    for _ in range(3):
        clock.advance(minutes=29)
        assert own.get("/whoami").status == 200
    for _ in range(2):  # what a page asks by itself is no use
        clock.advance(minutes=14)
        assert own.call("GET", "/whoami", headers={"X-Background": "1"}).status == 200
    clock.advance(minutes=3)
    refused = own.call("GET", "/whoami", headers={"X-Background": "1"})
    assert (refused.status, refused.code) == (401, "session_idle")
    assert own.get("/whoami").status == 401
    assert api.get("/whoami").status == 200, "other tokens do not idle"


def test_a_session_tells_where_it_was_begun(api: Api, alice: str) -> None:
    agent = {"User-Agent": "Firefox/999 " + "x" * 500}
    asked = {"name": alice, "password": PASSWORD}
    made = api.as_token(None).post("/login", asked, headers=agent).body
    by_password = api.get(f"/tokens/{made['token_id']}").body
    made = api.post("/tokens", {"name": "console", "idle_seconds": 1800}, headers=agent).body
    for token in (by_password, made):
        assert token["address"] == "127.0.0.1"
        assert token["user_agent"] == ("Firefox/999 " + "x" * 500)[:256]
    assert (by_password["idle_seconds"], made["idle_seconds"]) == (None, 1800)
    assert api.post("/tokens", {"name": "console", "idle_seconds": 1}).status == 422
