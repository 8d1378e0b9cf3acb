"""The units that the collection writes are what systemd understands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined

_TEMPLATE = Path(__file__).resolve().parents[2] / "ansible/roles/services/templates/unit.service"
_SERVICES: dict[str, dict[str, Any]] = {
    "agent": {
        "services_description": "virtmgr agent",
        "services_command": ["/bin/true", "agent"],
        "services_environment_file": "/opt/virtmgr/current/agent.env",
        "services_after": ["libvirtd.service"],
        "services_once": False,
        "services_undo": [],
    },
    "firewall": {
        "services_description": "virtmgr's rules for its own port",
        "services_command": ["/bin/true", "--file", "/etc/virtmgr/firewall.nft"],
        "services_environment_file": "",
        "services_after": [],
        "services_once": True,
        "services_undo": ["/bin/true", "delete", "table", "inet", "virtmgr_host"],
    },
}


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_systemd_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    # As Ansible renders it: https://docs.ansible.com/ansible/latest/collections/ansible/builtin/template_module.html
    environment = Environment(trim_blocks=True, undefined=StrictUndefined, autoescape=False)
    rendered = environment.from_string(_TEMPLATE.read_text()).render(_SERVICES[name])
    unit = tmp_path / f"virtmgr-{name}.service"
    unit.write_text(rendered)
    (tmp_path / "libvirtd.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, ""), rendered
    assert "After=network-online.target" in rendered
