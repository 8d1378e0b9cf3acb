"""System containers for real: busybox init everywhere, systemd on a Debian userland."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.drivers.oci.kit import OciKit, eventually, nic, workload
from virtmgr.domain.image import ContainerConfig
from virtmgr.domain.workload import Init
from virtmgr.drivers.oci.guest import parse_signal
from virtmgr.ports.driver import RuntimeState

pytestmark = pytest.mark.host

_USER_DATA = """\
#cloud-config
locale: C.UTF-8
write_files: [{path: /etc/told, content: by cloud-init}]
runcmd: [[touch, /etc/ran]]
"""
_SYSTEM = ContainerConfig(init="system")
_PACKAGES = "systemd,systemd-sysv,dbus"
_LATER = ("cloud-init",)  # apt resolves what debootstrap cannot


def test_busybox_init_boots_has_a_console_and_powers_off(each_runtime: OciKit) -> None:
    kit = each_runtime
    desired = workload(init=Init.SYSTEM, config=_SYSTEM, user_data="#cloud-config\n", nics=(nic(),))
    kit.driver.prepare(desired, kit.provision())
    kit.driver.start(desired, kit.provision())
    logged = lambda: b"".join(kit.driver.logs(desired.id, follow=False, tail=None))  # noqa: E731
    assert eventually(lambda: b"booted" in logged())
    with kit.driver.console(desired.id) as console:
        console.settimeout(20)
        console.sendall(b"\necho mar''ker; hostname; cat /var/lib/cloud/seed/nocloud/user-data\n")
        output = b""
        while b"#cloud-config" not in output:
            output += console.recv(4096)
        assert b"marker" in output
        assert b"web1" in output
    code, output, _ = kit.run(
        desired.id, "/bin/sh", "-c", "cat /etc/hosts; grep CapBnd /proc/1/status"
    )
    assert code == 0
    assert b"10.213.7.2" in output
    assert b"NoNewPrivs:\t1" not in output
    kit.driver.stop(desired.id, timeout=30, force=False)
    seen = kit.driver.inspect(desired.id)
    assert (seen.state, seen.exit_code, seen.signal) == (RuntimeState.EXITED, 0, None)
    kit.driver.start(desired, kit.provision())
    assert kit.driver.inspect(desired.id).state is RuntimeState.RUNNING


def debian() -> Path:
    """A Debian userland with systemd and cloud-init, made once and kept in the cache directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "virtmgr" / "tests"
    root = cache / "debian-cloud-init"
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix="debian-", dir=cache))
        try:
            command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm"]
            subprocess.run([*command, str(half)], check=True, capture_output=True)
            install = ["apt-get", "--yes", "--no-install-recommends", "install", *_LATER]
            isolated = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={half}/proc"]
            subprocess.run(
                [*isolated, "chroot", str(half), *install],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                check=True,
                capture_output=True,
            )
            (half / "etc/machine-id").write_text("")
            half.chmod(0o755)
            half.rename(root)
        except BaseException:
            shutil.rmtree(half)
            raise
    return root


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_systemd_boots_and_shuts_down(each_runtime: OciKit) -> None:
    kit = each_runtime
    kit.layer = debian()
    desired = workload(
        init=Init.SYSTEM,
        config=_SYSTEM,
        nics=(nic(),),
        user_data=_USER_DATA,
        resources={"memory": "256MiB", "vcpus": 1},
        root_disk={"size": "256MiB"},
    )
    kit.driver.prepare(desired, kit.provision())
    begin = time.monotonic()
    kit.driver.start(desired, kit.provision())

    def state() -> str:
        return kit.run(desired.id, "systemctl", "is-system-running")[1].decode().strip()

    up = eventually(lambda: state() in ("running", "degraded"))
    log = b"".join(kit.driver.logs(desired.id, follow=False, tail=None)).decode(errors="replace")
    print(f"systemd is {state()} after {time.monotonic() - begin:.2f} s\n{log}")
    failed = kit.run(desired.id, "systemctl", "--failed", "--no-legend", "--plain")[1].decode()
    assert up, log
    assert failed == "", failed
    code, output, _ = kit.run(desired.id, "systemd-run", "--wait", "--pipe", "id", "-u")
    assert (code, output) == (0, b"0\n")
    assert kit.run(desired.id, "hostname")[1] == b"web1\n"
    told = kit.run(
        desired.id, "/bin/sh", "-c", "cloud-init status --wait; cat /etc/told; ls /etc/ran"
    )
    assert told[1].endswith(b"status: done\nby cloud-init/etc/ran\n"), told
    with kit.driver.console(desired.id) as console:
        console.settimeout(30)
        console.sendall(b"\n")
        output = b""
        while b"web1 login:" not in output:
            output += console.recv(4096)
    kit.driver.stop(desired.id, timeout=60, force=False)
    seen = kit.driver.inspect(desired.id)
    assert (seen.state, seen.exit_code, seen.signal) == (RuntimeState.EXITED, 0, None)


def test_signals_by_name() -> None:
    assert parse_signal("SIGTERM") == parse_signal("term") == parse_signal("15") == 15
    assert parse_signal("SIGRTMIN+3") == signal.SIGRTMIN + 3
    assert parse_signal("nonsense") == signal.SIGTERM
