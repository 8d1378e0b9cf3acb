"""Contexts and logging in."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.fake_server import TOKEN, FakeServer, State
from virtmgr.cli.contexts import Context, Contexts, choose, load, save
from virtmgr.domain.errors import InvalidRequest


def test_log_in_and_work(
    bare: Run, server: FakeServer, state: State, tmp_path: Path, environment: dict[str, str]
) -> None:
    state.workload("web1")
    assert bare("context", "add", "here", "--server", server.url, "-p", "blue").exit_code == 0
    secret = tmp_path / "password"
    secret.write_text("right\n")
    result = bare("login", "ada", "--password-file", str(secret))
    assert result.exit_code == 0, result.output
    config = Path(environment["VIRTMGR_CONFIG"])
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "web1" in bare("list").stdout
    assert "/projects/blue/" in state.requests[-1][1]
    assert TOKEN not in bare("context", "show").stdout
    assert TOKEN not in bare("context", "list", "-o", "json").stdout


def test_wrong_password(bare: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTMGR_PASSWORD", "wrong")
    result = bare("login", "ada", "--server", server.url)
    assert result.exit_code == 5
    assert "hint: try again" in result.stderr


def test_context_verbs(bare: Run) -> None:
    for name in ("a", "b"):
        bare("context", "add", name, "--server", f"https://{name}.example")
    assert bare("context", "use", "b").exit_code == 0
    known = json.loads(bare("context", "list", "-o", "json").stdout)
    assert [(each["name"], each["current"]) for each in known] == [("a", False), ("b", True)]
    assert bare("context", "remove", "b").exit_code == 0
    assert bare("context", "use", "b").exit_code == 3
    assert bare("list").exit_code == 2


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    save(path, Contexts("a", {"a": Context("https://a", token="t")}))
    assert load(path).named("a").token == "t"
    path.chmod(0o640)
    with pytest.raises(InvalidRequest, match="may be read by others"):
        load(path)


def test_handwritten_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("current: a\ncontexts:\n  a:\n    server: https://a\n    project: blue\n")
    path.chmod(0o600)
    assert load(path) == Contexts("a", {"a": Context("https://a", project="blue")})
    path.write_text("contexts: [a]\n")
    with pytest.raises(InvalidRequest, match="not a virtmgr configuration"):
        load(path)


def test_a_token_goes_to_its_own_server_only() -> None:
    known = Contexts("a", {"a": Context("https://a", ca="A", token="t", project="p")})
    assert choose(known, None, {"VIRTMGR_SERVER": "https://b"}) == Context("https://b", project="p")
    assert choose(known, None, {"VIRTMGR_TOKEN": "u"}).token == "u"
    assert choose(known, None, {"VIRTMGR_SERVER": "https://a"}).token == "t"


def test_completion_scripts(bare: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_VIRTMGR_COMPLETE" in bare("completion", shell).stdout
