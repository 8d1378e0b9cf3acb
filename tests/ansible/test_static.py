"""What can be said of the collection without a host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.ansible.conftest import settings, tool

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "ansible/playbooks").glob("*.yml"))
MODULES = sorted(path.stem for path in (ROOT / "ansible/plugins/modules").glob("*.py"))


def _run(
    *argv: str, collections: Path, home: Path, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env=settings(collections, home),
        cwd=directory or home,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ansible_lint_has_nothing_to_say(collections: Path, tmp_path: Path) -> None:
    place = collections / "ansible_collections/virtmgr/core"
    lint = (tool("ansible-lint"), "--profile=production", "--offline", "--strict", "--nocolor")
    done = _run(*lint, collections=collections, home=tmp_path, directory=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Profile 'production' was required, and it passed." in done.stderr


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_syntax(playbook: Path, collections: Path, tmp_path: Path) -> None:
    name = f"virtmgr.core.{playbook.stem}"
    check = (tool("ansible-playbook"), "--syntax-check", "-i", "localhost,", name)
    done = _run(*check, collections=collections, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_are_documented(collections: Path, tmp_path: Path) -> None:
    names = [f"virtmgr.core.{module}" for module in MODULES]
    done = _run(tool("ansible-doc"), "--json", *names, collections=collections, home=tmp_path)
    assert done.returncode == 0, done.stderr
    documented = json.loads(done.stdout)
    assert sorted(documented) == sorted(names)
    for told in documented.values():
        assert told["examples"]
        assert told["return"]
        assert told["doc"]["options"]


def test_only_builtin_and_own_modules_are_used() -> None:
    keywords = {
        *("name", "when", "vars", "loop", "loop_control", "register", "until", "retries", "delay"),
        *("block", "rescue", "always", "notify", "no_log", "changed_when", "failed_when"),
        *("check_mode", "delegate_to", "become", "tags", "environment"),
    }
    for path in (ROOT / "ansible").glob("roles/*/*/*.yml"):
        if path.parent.name not in ("tasks", "handlers"):
            continue
        for task in _tasks(yaml.safe_load(path.read_text())):
            foreign = {key for key in task if key not in keywords}
            assert all(key.startswith(("ansible.builtin.", "virtmgr.core.")) for key in foreign), (
                path,
                foreign,
            )


def _tasks(found: list[dict[str, object]]) -> list[dict[str, object]]:
    every = []
    for task in found:
        every.append(task)
        for part in ("block", "rescue", "always"):
            inner = task.get(part)
            every += _tasks(inner) if isinstance(inner, list) else []
    return every


def test_the_version_is_virtmgrs() -> None:
    from virtmgr import __version__

    assert yaml.safe_load((ROOT / "ansible/galaxy.yml").read_text())["version"] == __version__
