"""How modules decide what to change, against a server that keeps things."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


@pytest.fixture
def client(collections: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module ``client`` of the collection."""
    monkeypatch.syspath_prepend(str(collections))
    for name in [name for name in sys.modules if name.startswith("ansible_collections")]:
        monkeypatch.delitem(sys.modules, name)
    from ansible_collections.virtmgr.core.plugins.module_utils import client

    return client


class _Things(BaseHTTPRequestHandler):
    """``/api/v1/things/NAME``, whose sizes are numbers whatever was sent."""

    kept: dict[str, dict[str, Any]]
    asked: list[str]
    address: str

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self._answer(self.kept.get(name))

    def do_POST(self) -> None:
        self._change(lambda body: (body["name"], _normal({"size": 1} | body)))

    def do_PATCH(self) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        self._change(lambda body: (name, _normal(self.kept[name] | body)))

    def do_DELETE(self) -> None:
        self.asked.append(f"DELETE {self.path}")
        if "dry_run" not in self.path:
            del self.kept[self.path.rpartition("/")[2]]
        self._answer({"dry_run": True, "would": {}})

    def _change(self, made: Any) -> None:
        self.asked.append(f"{self.command} {self.path}")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, thing = made(body)
        if thing["size"] > 100:
            problem = {"detail": "too large", "hint": "less", "errors": [{}]}
            return self._answer(problem, 422)
        if parse_qs(urlsplit(self.path).query).get("dry_run"):
            return self._answer({"dry_run": True, "would": thing})
        self.kept[name] = thing
        return self._answer(thing)

    def _answer(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body or {"detail": "not there"}).encode()
        self.send_response(status if body is not None else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _normal(thing: dict[str, Any]) -> dict[str, Any]:
    return thing | {"size": int(str(thing["size"]).removesuffix("B"))}


@pytest.fixture
def things() -> Iterator[type[_Things]]:
    class Things(_Things):
        pass

    Things.kept, Things.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Things)
    Things.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Things
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def asking(client: Any, things: Any) -> Any:
    return client.Client(things.address, "token")


def _bring(client: Any, asking: Any, check: bool = False, **wanted: Any) -> Any:
    return client.bring_to(asking, client.Noun("/things"), "a", wanted, check)


def test_what_is_missing_is_made_once(client: Any, asking: Any, things: Any) -> None:
    assert _bring(client, asking, size=5)["changed"]
    again = _bring(client, asking, size=5)
    assert not again["changed"]
    assert again["object"] == {"name": "a", "size": 5}
    assert things.asked == ["POST /api/v1/things"]


def test_the_server_says_whether_it_differs(client: Any, asking: Any, things: Any) -> None:
    _bring(client, asking, size=5)
    assert not _bring(client, asking, size="5B")["changed"]
    changed = _bring(client, asking, size="6B")
    assert changed["changed"]
    assert json.loads(changed["diff"]["before"]) == {"size": 5}
    assert json.loads(changed["diff"]["after"]) == {"size": 6}
    assert things.kept["a"]["size"] == 6


def test_check_mode_only_asks(client: Any, asking: Any, things: Any) -> None:
    assert _bring(client, asking, check=True, size=5)["changed"]
    assert things.kept == {}
    _bring(client, asking, size=5)
    assert _bring(client, asking, check=True, size=6)["changed"]
    assert client.take_away(asking, client.Noun("/things"), "a", True)["changed"]
    assert things.kept == {"a": {"name": "a", "size": 5}}


def test_taking_away_twice(client: Any, asking: Any) -> None:
    _bring(client, asking, size=5)
    assert client.take_away(asking, client.Noun("/things"), "a", False)["changed"]
    assert not client.take_away(asking, client.Noun("/things"), "a", False)["changed"]


def test_a_refusal_is_told(client: Any, asking: Any) -> None:
    with pytest.raises(client.ApiError, match=r"POST /things: too large \(less\)") as raised:
        _bring(client, asking, size=500)
    assert raised.value.status == 422


def test_a_silent_server_is_told(client: Any) -> None:
    with pytest.raises(client.ApiError, match="cannot be reached"):
        client.Client("http://127.0.0.1:1", "token").get("/things/a")


def test_token_and_server_come_from_options_or_environment(
    client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VIRTMGR_SERVER", "VIRTMGR_TOKEN", "VIRTMGR_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(client.ApiError, match="no server"):
        client.Client.from_options({})
    with pytest.raises(client.ApiError, match="no token"):
        client.Client.from_options({"server": "https://a"})
    (tmp_path / "token").write_text("vmt_1\n")
    options = {"server": "https://a", "token_file": str(tmp_path / "token")}
    assert client.Client.from_options(options)._token == "vmt_1"
    monkeypatch.setenv("VIRTMGR_TOKEN", "vmt_2")
    assert client.Client.from_options({"server": "https://a"})._token == "vmt_2"
