"""What a form says can be said by scripts: each text does the same when it is really used."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.cli.fake_server import TOKEN, FakeServer, State
from virtmgr.cli.documents import parse
from virtmgr.cli.main import root
from virtmgr.console import equivalents
from virtmgr.domain.workload import WorkloadSpec

SERVER = "https://plane.example.org:8443"

APP: dict[str, Any] = {
    "name": "web",
    "kind": "container",
    "init": "app",
    "image": "nginx",
    "description": "It's the shop's \"front\" $HOME `id`",
    "labels": {"tier": "web", "note": "a b"},
    "resources": {"vcpus": 0.5, "memory": "256MiB", "pids": 100,
                  "io": {"read_bytes_per_second": "50MiB", "write_operations_per_second": 200}},
    "root_disk": {"size": "1GiB"},
    "volumes": [{"volume": "data", "path": "/srv", "read_only": True}],
    "nics": [{"network": "default"}, {"network": "backend", "address": "fd00::7"}],
    "ports": [{"host": 8080, "guest": 80}, {"host": 53, "guest": 53, "protocol": "udp",
                                            "address": "::"}],
    "command": ["sh", "-c", "echo 'hello there'; sleep 1d"],
    "env": {"GREETING": "two\nlines", "EMPTY": ""},
    "workdir": "/srv",
    "user": "www:www",
    "restart": "always",
    "stop_timeout": 0,
    "protected": True,
    "ha": {"enabled": True, "priority": 5},
    "placement": {"cluster": "east", "host": "h1", "require": {"arch": "x86_64"},
                  "prefer": {"disk": "ssd"}, "spread_by": "rack"},
    "state": "stopped",
}  # fmt: skip
VM: dict[str, Any] = {
    "name": "db",
    "kind": "vm",
    "image": "debian",
    "cdrom": "tools",
    "boot": ["cdrom", "disk"],
    "firmware": "uefi",
    "vnc": False,
    "nics": [],
    "volumes": [{"volume": "data"}],
    "user_data": "#cloud-config\nruncmd:\n- echo '{{ not_ours }}' $HOME\n",
}
FAR: dict[str, Any] = {
    "name": "far",
    "kind": "container",
    "image": "nginx",
    "placement": {"affinity": [{"mode": "apart", "labels": {"tier": "web"}}]},
}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether both are the same workload once defaults are filled in."""
    return WorkloadSpec.model_validate(found) == WorkloadSpec.model_validate(wanted)


@pytest.mark.parametrize("spec", [APP, VM, FAR])
def test_yaml_is_a_document_of_apply(spec: dict[str, Any]) -> None:
    document = parse(yaml.safe_load(equivalents.as_yaml("shop", spec)), 1)
    assert (document.noun.name, document.project) == ("workload", "shop")
    assert same(dict(document.wanted), spec)


def test_yaml_of_several_has_their_names() -> None:
    found = list(yaml.safe_load_all(equivalents.as_yaml("shop", APP, 3)))
    assert [one["name"] for one in found] == ["web-1", "web-2", "web-3"]
    assert len(list(yaml.safe_load_all(equivalents.as_yaml("shop", APP, 500)))) == 1


def as_the_shell_reads(text: str, program: str) -> tuple[list[str], str]:
    """The arguments and the standard input that a real shell gives the program."""
    script = f"{program}() {{ printf '%s\\0' \"$@\"; printf '\\1'; [ -t 0 ] || cat; }}\n{text}"
    ended = subprocess.run(
        ["bash", "-eu", "-c", script],
        input="",
        capture_output=True,
        check=True,
        text=True,
        env={"VIRTMGR_TOKEN": "secret", "HOME": "/elsewhere", "PATH": os.environ["PATH"]},
    )
    words, _, given = ended.stdout.partition("\1")
    return words.removesuffix("\0").split("\0"), given


def sent(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """The path and the body that the real command sends."""
    words, given = as_the_shell_reads(text, "virtmgr")
    for name in [name for name in os.environ if name.startswith("VIRTMGR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIRTMGR_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("VIRTMGR_TOKEN", TOKEN)
    state = State()
    with FakeServer(state) as server:
        monkeypatch.setenv("VIRTMGR_SERVER", server.url)
        ended = CliRunner().invoke(root, [words[0], "--no-wait", *words[1:]], input=given)
    assert not ended.exception, ended.output
    _, path, body = state.requests[-1][:3]
    return path, body


@pytest.mark.parametrize("spec", [APP, VM])
def test_command_line_is_read_by_the_real_command(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = equivalents.as_command("shop", spec, 3)
    path, found = sent(text, tmp_path, monkeypatch)
    assert same(found, spec)
    assert path == "/api/v1/projects/shop/workloads?count=3"


def test_command_line_of_what_has_no_options_is_apply() -> None:
    text = equivalents.as_command("shop", FAR)
    head, _, rest = text.partition("\n")
    assert head == "virtmgr apply -f - <<'END_OF_TEXT'"
    document = parse(yaml.safe_load(rest.removesuffix("END_OF_TEXT\n")), 1)
    assert same(dict(document.wanted), FAR)


@pytest.mark.parametrize("spec", [APP, VM, FAR])
def test_curl_sends_the_spec(spec: dict[str, Any]) -> None:
    words, _ = as_the_shell_reads(equivalents.as_curl(SERVER, "shop", spec, 2), "curl")
    assert "Authorization: Bearer secret" in words
    assert json.loads(words[words.index("--data") + 1]) == spec
    assert words[-1] == f"{SERVER}/api/v1/projects/shop/workloads?count=2"


@pytest.mark.parametrize("spec", [APP, VM, FAR])
def test_ansible_task_has_the_spec_and_reads_no_templates_of_it(spec: dict[str, Any]) -> None:
    text = equivalents.as_ansible(SERVER, "shop", spec)

    class Loader(yaml.SafeLoader):
        """As Ansible's: !unsafe is a text."""

    unsafe: list[str] = []

    def construct(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
        unsafe.append(str(node.value))
        return str(node.value)

    Loader.add_constructor("!unsafe", construct)
    [task] = yaml.load(text, Loader)
    module = task["ansible.builtin.uri"]
    assert module["body"] == spec
    assert module["headers"]["Authorization"] == "Bearer {{ virtmgr_token }}"
    assert unsafe == ([spec["user_data"]] if "{{" in spec.get("user_data", "") else [])
