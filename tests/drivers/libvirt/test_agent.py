"""Commands and files through the agent of a guest that runs."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from tests.drivers.libvirt.kit import VmKit, workload
from virtmgr.domain.errors import DriverError, InvalidRequest, NotFound, Unsupported
from virtmgr.drivers.libvirt import exec
from virtmgr.drivers.libvirt.agent import GuestAgent
from virtmgr.drivers.libvirt.errors import NO_AGENT
from virtmgr.ports.driver import ExecRequest, ExecSession

pytestmark = pytest.mark.host


@pytest.fixture
def guest(kit: VmKit) -> str:
    """A VM whose agent answers; its id."""
    desired = workload(kit.kernel_image("no-acpi"))
    kit.driver.prepare(desired, kit.provision())
    kit.driver.start(desired, kit.provision())
    kit.wait_ready(desired.id)
    return desired.id


def finish(session: ExecSession) -> tuple[int, bytes, bytes]:
    """A command's exit code and what it wrote."""
    assert session.stderr is not None
    with session.stdout as stdout, session.stderr as stderr:
        out, err = stdout.read(), stderr.read()
    return session.wait(), out, err


def test_commands(kit: VmKit, guest: str) -> None:
    def run(*command: str, **more: object) -> tuple[int, bytes, bytes]:
        return finish(kit.driver.exec(guest, ExecRequest(command, **more)))  # type: ignore[arg-type]

    assert run("echo", "a b", "$HOME;'\"") == (0, b"a b $HOME;'\"\n", b"")
    assert run("sh", "-c", "echo bad >&2; exit 3") == (3, b"", b"bad\n")
    assert run("sh", "-c", "kill -9 $$")[0] == 137
    assert run("pwd", workdir="/proc") == (0, b"/proc\n", b"")
    absent = run("pwd", workdir="/absent")
    assert absent[0] != 0
    assert b"/absent" in absent[2]
    unknown = run("no-such-command")
    assert unknown[0] == 127
    assert b"not found" in unknown[2]
    assert run("sh", "-c", "echo $A-$B", env={"A": "x y", "B": "'"}) == (0, b"x y-'\n", b"")
    large = run("dd", "if=/dev/zero", "bs=1024", "count=1500")
    assert (large[0], len(large[1])) == (0, 1500 * 1024)
    for refused in ({"tty": True}, {"user": "nobody"}):
        with pytest.raises(Unsupported):
            run("true", **refused)
    assert run("ls", "/tmp")[1].count(b"virtmgr-") == 1  # its own; the others' are removed

    sessions = [kit.driver.exec(guest, ExecRequest(("echo", str(each)))) for each in range(8)]
    found = [finish(session) for session in sessions]  # all at the same time
    assert found == [(0, f"{each}\n".encode(), b"") for each in range(8)]


def test_input_and_its_end(kit: VmKit, guest: str) -> None:
    content = bytes(range(256)) * 2000
    session = kit.driver.exec(guest, ExecRequest(("sha256sum",), stdin=True))
    assert session.stdin is not None
    with session.stdin as stdin:
        for start in range(0, len(content), 4096):
            stdin.write(content[start : start + 4096])
    code, out, _ = finish(session)
    assert code == 0
    assert out.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_a_command_is_killed_and_seen_while_it_runs(kit: VmKit, guest: str) -> None:
    script = "echo one; sleep 1000"
    session = kit.driver.exec(guest, ExecRequest(("sh", "-c", script)))
    assert session.stdout.read(4) == b"one\n"
    session.kill()
    assert finish(session) == (137, b"", b"")
    waiting = kit.driver.exec(guest, ExecRequest(("cat",), stdin=True))
    waiting.kill()  # its input never ends
    assert waiting.stdin is not None
    waiting.stdin.close()
    assert finish(waiting)[0] != 0


def test_too_much_output_ends_the_command(kit: VmKit, guest: str) -> None:
    agent = GuestAgent(kit.domain(guest), guest)
    session = exec.start(agent, ("sh", "-c", "while :; do echo more; done"), limit=100_000)
    with pytest.raises(DriverError) as caught:
        finish(session)
    assert caught.value.code == "too_much_data"


def test_a_tree_goes_in_and_out(kit: VmKit, guest: str) -> None:
    large = bytes(range(256)) * 4000
    sent = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="w") as tar:
        for name, content in (("tree/a b", b"text"), ("tree/deep/large", large)):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid = len(content), 0o640, 12
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("tree/link")
        link.type, link.linkname = tarfile.SYMTYPE, "a b"
        tar.addfile(link)
    sent.seek(0)
    kit.driver.push(guest, "/tmp/made/anew", sent)
    pulled = io.BytesIO(b"".join(kit.driver.pull(guest, "/tmp/made/anew/tree/")))
    with tarfile.open(fileobj=pulled) as tar:
        found = {member.name: member for member in tar}
        assert set(found) == {
            "tree",
            "tree/a b",
            "tree/deep",
            "tree/deep/large",
            "tree/link",
        }
        extracted = tar.extractfile("tree/deep/large")
        assert extracted is not None
        assert extracted.read() == large
    assert found["tree/link"].linkname == "a b"
    assert (found["tree/a b"].mode, found["tree/a b"].uid) == (0o640, 12)

    with pytest.raises(NotFound):
        list(kit.driver.pull(guest, "/no/such/file"))
    with pytest.raises(InvalidRequest):
        list(kit.driver.pull(guest, "/"))
    with pytest.raises(DriverError, match="cannot unpack"):
        kit.driver.push(guest, "/tmp", io.BytesIO(b"no archive" * 1000))
    abandoned = kit.driver.pull(guest, "/tmp/made")
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]


def test_without_an_agent_it_says_what_to_do(kit: VmKit) -> None:
    desired = workload(kit.kernel_image("no-agent"))
    kit.booted(desired)
    for verb in (
        lambda: kit.driver.exec(desired.id, ExecRequest(("true",))),
        lambda: list(kit.driver.pull(desired.id, "/tmp")),
        lambda: kit.driver.push(desired.id, "/tmp", io.BytesIO()),
    ):
        with pytest.raises(DriverError) as caught:
            verb()
        assert caught.value.code == NO_AGENT
        assert "qemu-guest-agent" in (caught.value.hint or "")


def test_a_guest_that_dies_ends_its_commands(kit: VmKit, guest: str) -> None:
    session = kit.driver.exec(guest, ExecRequest(("sleep", "1000")))
    kit.driver.stop(guest, timeout=0, force=True)
    with pytest.raises(DriverError):
        finish(session)
    with pytest.raises(DriverError, match="does not run"):
        kit.driver.exec(guest, ExecRequest(("true",)))
