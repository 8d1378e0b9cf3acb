"""Labs come up more than once, and go without a trace, whatever has become of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.lab import remove_abandoned, session_site
from tests.lab.fleet import Lab
from tests.lab.kernel import LabError, hierarchies
from tests.lab.plan import Flavour, Release, fleet
from tests.lab.roots import root_tree

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]

ROOT = Path(__file__).resolve().parents[2]
_ONE = fleet(1, (Release.BOOKWORM,), Flavour.BARE)
_TWO = fleet(2, (Release.BOOKWORM, Release.TRIXIE), Flavour.BARE)


@pytest.fixture
def other() -> Iterator[Lab]:
    """Another lab, not up; with the root trees that it needs at hand."""
    remove_abandoned()
    for host in _TWO:
        root_tree(host.release, host.flavour, print)
    lab = Lab(session_site("other"), say=print)
    yield lab
    lab.down()


def _traces(lab: Lab) -> list[str]:
    """What the machine still has of a lab."""
    name = lab.site.directory.name
    found = [f"process {pid}" for pid in lab.site.group("").pids()]
    found += [
        f"process {path.parent.name}"
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if name in _content(path)
    ]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    found += [target for target, _, _ in hierarchies() if (Path(target) / name).exists()]
    found += [
        str(path)
        for path in Path("/sys/block").glob("loop*/loop/backing_file")
        if name in _content(path)
    ]
    return found + [str(path) for path in lab.site.directory.parent.glob(f"{name}*")]


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_down_leaves_nothing(other: Lab) -> None:
    links = Path("/proc/net/dev").read_text().split()[::17]
    first, second = other.up(_TWO)
    first.run("sh", "-c", "truncate -s 1M /var/lib/image; losetup -f /var/lib/image")
    first.degrade(delay=0.01)
    first.hang()
    second.power_off()
    assert _traces(other)
    other.down()
    assert not _traces(other)
    assert Path("/proc/net/dev").read_text().split()[::17] == links


def test_down_of_nothing(other: Lab) -> None:
    other.down()
    assert other.hosts() == []
    with pytest.raises(LabError, match="not up"):
        other.attached("true")


def test_up_again_keeps_what_runs_and_adds_what_is_missing(other: Lab) -> None:
    (first,) = other.up(_ONE)
    before = first.state
    again, second = other.up(_TWO)
    assert again.state == before
    assert first.run("ping", "-c", "1", "-W", "2", second.name).returncode == 0
    second.power_off()
    other.up(_TWO)
    assert second.is_on


def test_a_host_that_ended_from_within_comes_back(other: Lab) -> None:
    (host,) = other.up(_ONE)
    host.run("sh", "-c", "kill -TERM 1", check=False)
    deadline = time.monotonic() + 20
    while host.is_on and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not host.is_on
    host.power_on()
    assert host.ssh("id", "-un").stdout == "root\n"


def test_the_switch_was_killed(other: Lab) -> None:
    (host,) = other.up(_ONE)
    other.site.group("switch").kill()
    with pytest.raises(LabError, match="not up"):
        other.attached("true")
    host.power_off()
    other.up(_ONE)
    assert host.ssh("id", "-un").stdout == "root\n"


@pytest.mark.parametrize("milliseconds", [40, 120, 200, 300, 500])
def test_killed_while_it_comes_up(other: Lab, milliseconds: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "--directory", other.site.directory, "up", "2",
         "--flavour", "bare"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as coming:  # fmt: skip
        time.sleep(milliseconds / 1000)
        coming.send_signal(signal.SIGKILL)
    if milliseconds % 200 == 0:
        for host in other.up(_TWO):
            assert host.ssh("id", "-un").stdout == "root\n"
    other.down()
    assert not _traces(other)


def test_a_bare_host_has_no_more_than_ssh_and_python(other: Lab) -> None:
    for host in other.up(_TWO):
        host.run("python3", "-c", "pass")
        for program in ("virsh", "crun", "nft", "dnsmasq"):
            assert host.run("which", program, check=False).returncode != 0


def test_the_command_line(other: Lab) -> None:
    def lab(*words: str) -> str:
        command = [sys.executable, "-m", "tests.lab", "--directory", str(other.site.directory)]
        done = subprocess.run(
            [*command, *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    assert "Debian 12" in lab("up", "1", "--flavour", "bare")
    assert lab("shell", "h1", "--", "hostname") == "h1\n"
    assert lab("ssh", "h1", "hostname") == "h1\n"
    assert "1 received" in lab("run", "--", "ping", "-c", "1", "h1")
    lab("partition", "h1", "control")
    lab("delay", "h1", "20")
    lab("loss", "h1", "2.5")
    faults = lab("list")
    assert "cut from control, delay 20 ms, loss 2.5 %" in faults
    lab("heal", "h1")
    lab("hang", "h1")
    assert "hangs" in lab("list")
    lab("thaw", "h1")
    lab("fill-disk", "h1", "--leave", "4096")
    lab("free-disk", "h1")
    lab("power-off", "h1")
    assert "off" in lab("list")
    lab("power-on", "h1")
    lab("down")
    assert lab("list") == ""
