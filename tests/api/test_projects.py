"""Projects and quotas, as the pattern of every plain resource."""

from __future__ import annotations

from collections.abc import Callable

from tests.api.contract import Api


def test_a_project_lives_and_dies(api: Api) -> None:
    made = api.post("/projects", {"name": "shop", "labels": {"tier": "web"}})
    assert made.status == 201
    assert made.headers["Location"] == f"/api/v1/projects/{made.body['id']}"
    assert api.get("/projects/shop").body == api.get(f"/projects/{made.body['id']}").body
    changed = api.patch("/projects/shop", {"description": "Web shop", "labels": {"a": "b"}})
    assert changed.body["description"] == "Web shop"
    assert changed.body["labels"] == {"tier": "web", "a": "b"}
    assert changed.body["version"] == 2
    assert api.delete("/projects/shop").status == 204
    assert api.get("/projects/shop").status == 404


def test_a_name_is_taken_once(api: Api) -> None:
    assert api.post("/projects", {"name": "shop"}).status == 201
    again = api.post("/projects", {"name": "shop"})
    assert (again.status, again.code, again.body["field"]) == (409, "name_taken", "name")


def test_a_project_in_use_is_not_deleted(api: Api) -> None:
    api.post("/projects", {"name": "shop"})
    api.post("/projects/shop/volumes", {"name": "data", "size": "1GiB"})
    refused = api.delete("/projects/shop")
    assert (refused.status, refused.code) == (409, "in_use")
    assert refused.body["explanation"] == {"used_by": {"volume": ["data"]}}
    assert "data" in refused.body["detail"]


def test_a_quota_limits_and_null_lifts_it(api: Api) -> None:
    set_to = api.patch("/projects/default/quota", {"limit_volumes": 1, "limit_disk": "2GiB"})
    assert (set_to.body["limit_volumes"], set_to.body["limit_disk"]) == (1, 2 * 1024**3)
    assert api.post("/projects/default/volumes", {"name": "a", "size": "1GiB"}).status == 201
    refused = api.post("/projects/default/volumes", {"name": "b", "size": "1GiB"})
    assert (refused.status, refused.code) == (409, "quota_exceeded")
    assert "volumes: 1 of 1 used, 1 asked" in refused.body["detail"]
    assert "volumes" in refused.body["detail"]
    assert api.patch("/projects/default/quota", {"limit_volumes": None}).status == 200
    assert api.post("/projects/default/volumes", {"name": "b", "size": "1GiB"}).status == 201
    used = api.get("/projects/default/quota").body
    assert (used["used_volumes"], used["used_disk"]) == (2, 2 * 1024**3)
    api.delete("/projects/default/volumes/a")
    assert api.get("/projects/default/quota").body["used_volumes"] == 1


def test_one_sees_only_ones_projects(api: Api, as_role: Callable[..., Api]) -> None:
    api.post("/projects", {"name": "shop"})
    viewer = as_role("viewer", "shop")
    assert [item["name"] for item in viewer.get("/projects").body["items"]] == ["shop"]
    assert viewer.get("/projects/default").status == 404
    assert viewer.get("/projects/shop").status == 200
    assert viewer.patch("/projects/shop", {"description": "x"}).status == 403


def test_lists_show_quotas(api: Api) -> None:
    api.post("/projects", {"name": "shop"})
    api.patch("/projects/shop/quota", {"limit_volumes": 3})
    api.post("/projects/shop/volumes", {"name": "data", "size": "1GiB"})
    listed = {item["name"]: item["quota"] for item in api.get("/projects").body["items"]}
    assert listed["shop"] == api.get("/projects/shop/quota").body
    assert (listed["shop"]["used_volumes"], listed["shop"]["limit_volumes"]) == (1, 3)
    assert listed["default"]["used_volumes"] == 0
    assert api.get("/projects", q="nothing").body["items"] == []
