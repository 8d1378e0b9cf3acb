"""Sessions of people, and what other sites, copied cookies and odd browsers can do: nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.api.conftest import StillClock
from tests.api.contract import Api
from tests.console.installation import PASSWORD
from virtmgr.console import session
from virtmgr.console.app import create_console

BACKGROUND: Final = {"X-Background": "1"}
ABROAD: Final = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://localhost"},
    {"Origin": "https://evil.example"},
    {"Origin": "https://localhost.evil.example"},
    {"Origin": "null"},
)


@dataclass
class Browser:
    """What of a browser matters here: it keeps cookies, and sends what it is told to."""

    client: FlaskClient

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.client.get(path, base_url="https://localhost", **options)

    def post(self, path: str, form: dict[str, str] | None = None, **options: Any) -> TestResponse:
        return self.client.post(path, data=form, base_url="https://localhost", **options)

    def log_in(self, *, next: str = "/", **options: Any) -> TestResponse:
        form = {"name": "admin", "password": PASSWORD, "next": next}
        return self.post("/login", form, **options)

    @property
    def proof(self) -> str:
        found = re.search(r'"X-CSRF-Token": "(\w+)"', self.get("/hosts", headers=BACKGROUND).text)
        assert found is not None
        return found[1]


@pytest.fixture
def console(app: Flask, api: Api) -> Flask:
    assert api.put("/users/admin/password", {"password": PASSWORD}).status == 200
    return create_console(app)


@pytest.fixture
def visitor(console: Flask) -> Browser:
    return Browser(console.test_client())


@pytest.fixture
def browser(visitor: Browser) -> Browser:
    assert visitor.log_in().status_code == 303
    return visitor


def led_to(response: TestResponse) -> str:
    assert response.status_code in (302, 303), response.status
    return response.headers["Location"]


# ---- the cookie


def test_the_cookie_is_for_this_host_only_and_not_for_scripts(visitor: Browser) -> None:
    (given,) = visitor.log_in().headers.getlist("Set-Cookie")
    name, *attributes = re.split(r"; |=", given, maxsplit=1)[0], *given.split("; ")[1:]
    assert name.startswith("__Host-")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert "Domain" not in given
    assert PASSWORD not in given


@pytest.mark.parametrize("value", ["x~ÿ", "~", "x~y", "\u2028~\u2028", "a" * 4000])
def test_a_broken_cookie_is_no_session(visitor: Browser, value: str) -> None:
    visitor.client.set_cookie(session.COOKIE, value)
    assert led_to(visitor.get("/hosts")).startswith("/login")


def test_a_token_of_scripts_is_no_session(visitor: Browser, api: Api) -> None:
    sent = {"Authorization": f"Bearer {api.token}"}
    assert led_to(visitor.get("/hosts", headers=sent)).startswith("/login")


# ---- forged requests


def test_a_change_wants_the_proof_of_this_very_session(console: Flask, browser: Browser) -> None:
    other = Browser(console.test_client())
    other.log_in()
    assert other.proof != browser.proof
    for proof in ("", "wrong", "ÿ", other.proof):
        sent = {"X-CSRF-Token": proof.encode().decode("latin-1")}
        assert browser.post("/project", {"project": ""}, headers=sent).status_code == 403
        assert browser.post("/project", {"csrf_token": proof}).status_code == 403
    assert browser.post("/project").status_code == 403
    assert browser.post("/project", headers={"X-CSRF-Token": browser.proof}).status_code == 303
    assert browser.post("/project", {"csrf_token": browser.proof}).status_code == 303


@pytest.mark.parametrize("headers", ABROAD)
def test_other_sites_change_nothing(browser: Browser, headers: dict[str, str]) -> None:
    sent = {"X-CSRF-Token": browser.proof, **headers}
    refused = browser.post("/project", headers=sent)
    assert refused.status_code == 403
    assert "another site" in refused.text


@pytest.mark.parametrize("headers", ABROAD)
def test_other_sites_log_nobody_in(visitor: Browser, headers: dict[str, str]) -> None:
    assert visitor.log_in(headers=headers).status_code == 403


def test_every_change_is_guarded(console: Flask, browser: Browser) -> None:
    for rule in console.url_map.iter_rules():
        methods = (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
        path = re.sub(r"<[^>]+>", "x", rule.rule)
        for method in methods:
            answer = browser.client.open(path, method=method, base_url="https://localhost")
            assert answer.status_code == 403, f"{method} {rule.rule}"


def test_reading_changes_nothing(console: Flask) -> None:
    both = [
        rule.rule
        for rule in console.url_map.iter_rules()
        if {"GET", "POST"} <= (rule.methods or set())
    ]
    assert both == [], "a page that acts has an address of its own for that"


# ---- where a log-in leads


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "http:evil.example",
        "",
    ],
)
def test_a_log_in_leads_nowhere_else(visitor: Browser, address: str) -> None:
    assert led_to(visitor.log_in(next=address)) == "/"


def test_a_log_in_leads_back(visitor: Browser) -> None:
    asked = led_to(visitor.get("/workloads?q=a%26b&kind=vm"))
    assert asked == "/login?next=%2Fworkloads%3Fq%3Da%2526b%26kind%3Dvm"
    shown = visitor.get(asked).text
    assert 'name="next" value="/workloads?q=a%26b&amp;kind=vm"' in shown
    assert led_to(visitor.log_in(next="/workloads?q=a%26b&kind=vm")) == "/workloads?q=a%26b&kind=vm"


def test_what_a_page_asks_by_itself_leads_to_the_log_in_too(visitor: Browser) -> None:
    sent = {"HX-Request": "true", "HX-Current-URL": "https://localhost/hosts?sort=-name"}
    answer = visitor.get("/tasks", headers=sent)
    assert answer.status_code == 401
    assert answer.headers["HX-Redirect"] == "/login?next=%2Fhosts%3Fsort%3D-name"


# ---- the end of a session


def test_a_session_idles_out_at_the_server(browser: Browser, clock: StillClock) -> None:
    kept = browser.client.get_cookie(session.COOKIE)
    assert kept is not None
    for _ in range(3):
        clock.advance(minutes=29)
        assert browser.get("/hosts").status_code == 200
    clock.advance(minutes=31)
    browser.client.set_cookie(session.COOKIE, kept.value)  # whoever kept it longer than told
    assert led_to(browser.get("/hosts")).startswith("/login")


def test_what_a_page_asks_by_itself_prolongs_nothing(browser: Browser, clock: StillClock) -> None:
    asked = {"/hosts": BACKGROUND, "/tasks": BACKGROUND, "/live": {}}
    for _ in range(2):
        clock.advance(minutes=14)
        for path, headers in asked.items():
            answer = browser.get(path, headers=headers)
            assert answer.status_code == 200
            assert "Set-Cookie" not in answer.headers, path
            answer.close()
    clock.advance(minutes=3)
    for path, headers in asked.items():
        assert led_to(browser.get(path, headers=headers)).startswith("/login"), path


def test_a_session_ends_after_twelve_hours_of_use(browser: Browser, clock: StillClock) -> None:
    for _ in range(12 * 60 // 20):
        assert browser.get("/hosts").status_code == 200
        clock.advance(minutes=20)
    assert led_to(browser.get("/hosts")).startswith("/login")


def test_a_log_out_revokes(console: Flask, browser: Browser) -> None:
    kept = browser.client.get_cookie(session.COOKIE)
    assert kept is not None
    left = browser.post("/logout", {"csrf_token": browser.proof})
    assert led_to(left) == "/login"
    thief = Browser(console.test_client())
    thief.client.set_cookie(session.COOKIE, kept.value)
    assert led_to(thief.get("/hosts")).startswith("/login")


def test_the_list_of_sessions_tells_where_each_was_begun(
    console: Flask, visitor: Browser, api: Api
) -> None:
    agent = {"User-Agent": "Mozilla/5.0 <b>é</b>".encode().decode("latin-1")}
    here = {"REMOTE_ADDR": "192.0.2.7"}
    visitor.log_in(headers=agent, environ_overrides=here)
    form = {"token": str(api.token)}
    second = Browser(console.test_client())
    second.post("/login", form, headers={"User-Agent": "other"}, environ_overrides=here)
    found = {token["name"]: token for token in api.get("/tokens").body["items"]}
    assert found["login"]["address"] == found["console"]["address"] == "192.0.2.7"
    assert found["login"]["user_agent"].startswith("Mozilla/5.0 <b>")
    assert found["console"]["user_agent"] == "other"
    assert found["login"]["idle_seconds"] == found["console"]["idle_seconds"] == 1800
    assert found["init"]["idle_seconds"] is None


def test_a_token_that_is_none_is_told(visitor: Browser) -> None:
    for given in ("nonsense", "vmt_ÿ", "a\r\nX-Evil: 1"):
        refused = visitor.post("/login", {"token": given})
        assert refused.status_code == 401
        assert "The token is not known" in refused.text
        assert given not in refused.text, "what is secret is not shown again"


# ---- what every answer says


def test_every_answer_carries_the_policy(console: Flask, browser: Browser) -> None:
    plain = [
        rule.rule
        for rule in console.url_map.iter_rules()
        if not rule.arguments and "GET" in (rule.methods or set())
    ]
    assert "/workloads" in plain
    for path in [*plain, "/no/such/page", "/hosts/no-such-host", "/static/x/console.css"]:
        with browser.get(path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            given = dict(part.split(" ", 1) for part in policy.split("; "))
            assert given["default-src"] == given["frame-ancestors"] == given["base-uri"] == "'none'"
            assert given["script-src"] == given["form-action"] == "'self'"
            assert given["connect-src"] == "'self'"
            assert "unsafe-eval" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            kept = path.startswith("/static/")
            assert kept or answer.headers["Cache-Control"] == "no-store", path


def test_pages_name_no_other_host(console: Flask, browser: Browser) -> None:
    for rule in console.url_map.iter_rules():
        if rule.arguments or "GET" not in (rule.methods or set()) or rule.endpoint == "frame.live":
            continue
        with browser.get(rule.rule) as answer:
            found = re.findall(r'(?:src|href|action|data)="((?:[a-z]+:)?//[^"]*)"', answer.text)
            assert found == [], rule.rule


@pytest.mark.parametrize(
    "name", ["..", ".", "a/b", "<script>", "ÿ", "日本", "%2e%2e", "{x}", "a?b#c"]
)
def test_odd_names_in_addresses_are_names(browser: Browser, name: str) -> None:
    answer = browser.get(f"/hosts/{quote(name, safe='')}")
    assert answer.status_code == 404
    assert "<script>" not in answer.text


def test_odd_headers_break_nothing(browser: Browser) -> None:
    odd = "ÿ\u2028".encode().decode("latin-1")
    for header in ("User-Agent", "Accept-Language", "HX-Current-URL", "Referer", "Last-Event-ID"):
        with browser.get("/hosts", headers={header: odd}) as answer:
            assert answer.status_code == 200
    assert browser.get("/live", headers={"Last-Event-ID": odd}).status_code == 400


@pytest.mark.parametrize("value", ["gone", "<script>", "a&limit=1", "ÿ"])
def test_a_chosen_project_that_is_none_breaks_no_page(browser: Browser, value: str) -> None:
    browser.client.set_cookie("virtmgr-project", value)
    for path in ("/workloads", "/hosts", "/projects-menu"):
        answer = browser.get(path)
        assert answer.status_code == 200, path
        assert "<script>" not in answer.text
