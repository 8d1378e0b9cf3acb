"""Pages of nouns over the API itself, without a browser: what they show, ask and refuse."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from html import unescape

import pytest

from tests.api.host import PretendHost
from tests.console.without_browser import Console, console_of, services_of
from virtmgr.services.container import Services

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"
PAGES = (
    "/images",
    "/images?state=ready&type=container",
    "/images/import",
    "/images/import?source=simplestreams%3Ahttps%3A%2F%2Fa.example%23b&name=c",
    "/images/build",
    "/images/prune",
    "/images/busybox",
    "/images/busybox/edit",
    "/volumes",
    "/volumes/create",
    "/projects/default/volumes/data",
    "/projects/default/volumes/data/edit",
    "/networks",
    "/networks/create",
    "/networks/topology",
    "/networks/topology?table=1&project=default",
    "/networks/default",
    "/networks/default/edit",
    "/projects/default/networks/own",
    "/projects/default/networks/own/edit",
    "/projects",
    "/projects/create",
    "/projects/default",
    "/projects/default/edit",
    "/projects/default/quota",
    "/users",
    "/users/create",
    "/users/admin",
    "/account",
    "/operations",
    "/operations?state=failed",
    "/events",
    "/events?span=1h&q=web&live=off",
    "/events?since=2026-01-01T00:00&target_type=workload",
    "/settings",
)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services_of(tmp_path_factory.mktemp("nouns")) as found:
        yield found


@pytest.fixture(scope="module")
def console(services: Services) -> Console:
    """With a host, a workload of each project, a volume and a network."""
    found = console_of(services)
    PretendHost(services)
    found.api.post("/projects/default/volumes", {"name": "data", "size": "1GiB"})
    found.api.post("/projects/default/networks", {"name": "own", "ipv4": "10.9.0.0/24"})
    spec = {"name": "web", "kind": "container", "image": "busybox"}
    assert found.api.post("/projects/default/workloads", spec).status == 202
    return found


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_made(console: Console, path: str) -> None:
    page = console.get(path)
    assert page.status_code == 200, page.text
    assert "<h1>" in page.text
    part = console.get(path, **{"HX-Request": "true"})
    assert (part.status_code, "<nav>" in part.text) == (200, False)


def test_what_people_wrote_is_no_markup(console: Console) -> None:
    api = console.api
    api.post("/projects", {"name": "evil", "description": HOSTILE, "labels": {"a": HOSTILE}})
    api.post("/users", {"name": "mallory", "display_name": HOSTILE})
    api.patch("/images/busybox", {"labels": {"x": HOSTILE}})
    for path in (
        "/projects",
        "/projects/evil",
        "/projects/evil/edit",
        "/users",
        "/users/mallory",
        "/images/busybox",
        "/images/busybox/edit",
        f"/events?q={HOSTILE}",
        f"/networks/default?q={HOSTILE}",
    ):
        page = console.get(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text, path
        assert "49" not in unescape(page.text).partition("alert(1)")[2][:20], path
    assert HOSTILE in unescape(console.get("/users/mallory").text)
    api.delete("/users/mallory")
    api.delete("/projects/evil")


def test_a_refused_form_keeps_what_was_typed(console: Console) -> None:
    refused = console.post(
        "/networks/create", name="Net!", type="vlan", interface="eth1", vlan="x", ipv4="10.1.0.0/16"
    )
    assert refused.status_code == 422
    assert 'value="Net!"' in refused.text
    assert 'value="vlan" checked' in refused.text
    assert refused.text.count("is-invalid") == 2, "name and vlan"
    refused = console.post("/images/import", **{"from": "url", "url": "ftp://x", "name": "i"})
    assert (refused.status_code, 'value="ftp://x"' in refused.text) == (422, True)
    refused = console.post("/projects/default/quota", limit_vcpus="many", limit_memory="4XB")
    assert (refused.status_code, refused.text.count("is-invalid")) == (422, 2)


def test_an_import_is_followed_cancelled_and_told(console: Console) -> None:
    begun = console.post(
        "/images/import",
        **{"from": "registry", "reference": "registry.example/app:1", "name": "app"},
        aliases="app:1 app:latest",
        labels="tier=web",
    )
    assert begun.headers["HX-Redirect"] == "/images/app"
    page = console.get("/images/app").text
    assert "every 1s" in page
    assert "docker://registry.example/app:1" in page
    image = console.api.get("/images/app").body
    assert (image["aliases"], image["labels"]) == (["app:1", "app:latest"], {"tier": "web"})
    (operation,) = console.api.get("/operations", target=image["id"]).body["items"]
    shown = console.get(f"/operations/{operation['id']}").text
    assert "The image is given up and removed." in shown
    assert f"/operations/{operation['id']}/log/0" in shown
    assert console.post(f"/operations/{operation['id']}/retry").status_code == 409
    assert console.post(f"/operations/{operation['id']}/cancel").status_code == 204
    after = console.get(f"/operations/{operation['id']}").text
    assert "cancelled" in after
    assert "/log/" not in after, "nothing more comes"


def test_volumes_are_attached_and_detached(console: Console) -> None:
    here = "/projects/default/volumes/data"
    refused = console.post(f"{here}/attach", workload="web")
    assert refused.status_code == 422, "containers want a path"
    attached = console.post(f"{here}/attach", workload="web", path="/data")
    assert attached.headers["HX-Redirect"] == here
    assert "Detach" in console.get(here).text
    assert console.post(f"{here}/edit", name="data", size="2GiB", labels="").status_code == 422
    assert console.post(f"{here}/detach").status_code in (204, 409)


def test_shared_networks_and_those_of_projects(console: Console) -> None:
    made = console.post("/networks/create", name="all", type="nat", ipv4="10.77.0.0/24")
    assert made.headers["HX-Redirect"] == "/networks/all"
    assert "room for 253" in console.get("/networks/all").text
    changed = console.post("/networks/all/edit", name="every", dns_domain="lan", labels="a=b")
    assert changed.headers["HX-Redirect"] == "/networks/every"
    assert console.post("/networks/every/delete").headers["HX-Redirect"] == "/networks"
    own = console.post(
        "/networks/create", name="mine", type="overlay", ipv4="10.78.0.0/24", project="default"
    )
    assert own.headers["HX-Redirect"] == "/projects/default/networks/mine"
    assert console.post("/projects/default/networks/mine/delete").status_code == 200


def test_what_is_exported_is_all_that_matches(console: Console) -> None:
    console.api.post("/projects", {"name": "sums", "description": "="})
    console.api.delete("/projects/sums")
    every = console.api.get("/events", limit=500).body["items"]
    exported = json.loads(console.get("/events/export.json").text)
    assert exported == every
    reply = console.get("/events/export.csv?target_type=project&span=1h")
    assert "attachment" in reply.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    projects = [event for event in every if event["target"]["type"] == "project"]
    assert [row["message"] for row in rows] == [event["message"] for event in projects]
    assert json.loads(console.get("/events/export.json?type=no.such").text) == []
    assert console.get("/events/export.csv?since=yesterday").status_code == 422


def test_the_ca_is_rotated_and_retired(console: Console) -> None:
    assert "BEGIN CERTIFICATE" in console.get("/settings/ca.pem").text
    assert console.post("/settings/ca/rotate").status_code == 204
    shown = console.get("/settings").text
    assert "The next CA is being made known" in shown
    refused = console.post("/settings/ca/retire")
    assert refused.status_code == 409
    assert "toast" in refused.headers["HX-Trigger"]


def test_choices_are_kept_in_the_browser(console: Console) -> None:
    kept = console.post("/settings/preferences", theme="dark")
    assert "virtmgr-theme=dark" in kept.headers["Set-Cookie"]


def test_members_come_and_go(console: Console) -> None:
    console.api.post("/users", {"name": "maria"})
    assert "Nobody has a role in just this project" in console.get("/projects/default").text
    assert console.post("/projects/default/members", user="maria", role="viewer").status_code == 204
    (binding,) = console.api.get("/role-bindings", project="default").body["items"]
    assert f"member-{binding['id']}" in console.get("/projects/default").text
    removed = console.post(f"/projects/default/members/{binding['id']}/remove")
    assert "live-role_binding" in removed.headers["HX-Trigger"]
    assert "Nobody has a role in just this project" in console.get("/projects/default").text
    console.api.delete("/users/maria")


def test_own_account(console: Console) -> None:
    made = console.post("/account/tokens", name="laptop", days="1", role="", project="")
    assert (made.status_code, "vmt_" in made.text) == (200, True)
    assert 'hx-get="/account"' in made.text, "its live parts read the page, not the form's address"
    (token,) = [
        each for each in console.api.get("/tokens").body["items"] if each["name"] == "laptop"
    ]
    assert console.post(f"/account/tokens/{token['id']}/revoke").status_code == 204
    differ = console.post("/account/password", present="x", password="a" * 12, again="b" * 12)
    assert (differ.status_code, "differ" in differ.text) == (422, True)
    wrong = console.post("/account/password", present="x", password="a" * 12, again="a" * 12)
    assert wrong.status_code == 422
