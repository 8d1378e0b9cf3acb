"""Kernel parameters: a port without addresses, where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtmgr.domain.errors import NetworkError
from virtmgr.drivers import sysctl


def test_a_port_is_denied_addresses_while_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    sysctl.deny_addresses("port0")  # the kernel has no IPv6, or the port is gone
    setting = tmp_path / "ipv6/conf/port0/disable_ipv6"
    setting.parent.mkdir(parents=True)
    setting.write_text("0\n")
    sysctl.deny_addresses("port0")
    assert setting.read_text() == "1"


def test_a_kernel_that_refuses_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _text: str) -> int:
        raise PermissionError("read-only")

    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    setting = tmp_path / "ipv6/conf/port0/disable_ipv6"
    setting.parent.mkdir(parents=True)
    setting.write_text("0\n")
    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(NetworkError, match=r"port0\.disable_ipv6"):
        sysctl.deny_addresses("port0")
