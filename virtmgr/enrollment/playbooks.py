"""The playbooks of the collection virtmgr.core, run by Ansible in processes of their own."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from virtmgr.domain.errors import HostError, Unavailable
from virtmgr.domain.installation import TaskFailed
from virtmgr.domain.ssh import HostKey, parse_keys
from virtmgr.enrollment.playbook_events import findings, translate
from virtmgr.enrollment.wheelhouse import is_current, make_wheelhouse
from virtmgr.ports.playbooks import PlayRequest, Report

_SCAN = 5  # seconds that a server may take to show its keys
_END = 30.0  # seconds that a run which is ended may take to clean up
_LOOK = 0.5  # seconds between looks whether a run shall be ended
_SSH = (
    "-F /dev/null -o ControlMaster=auto -o ControlPersist=60s -o StrictHostKeyChecking=yes "
    "-o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile={known_hosts} -o IdentitiesOnly=yes "
    "-o IdentityAgent=none -o ServerAliveInterval=10 -o ServerAliveCountMax=3"
)


def scan_keys(address: str, port: int) -> tuple[HostKey, ...]:
    """The keys that an ssh server shows, see ``ports.playbooks.Playbooks.scan``.

    :raises HostError: it does not answer.
    :raises Unavailable: there is no ssh-keyscan.
    """
    types = "ed25519,ecdsa,rsa"
    command = ["ssh-keyscan", "-T", str(_SCAN), "-p", str(port), "-t", types, "--", address]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=2 * _SCAN, check=False
        )
    except FileNotFoundError as error:
        raise Unavailable(
            "look at a host's ssh key: there is no ssh-keyscan on the control plane",
            hint="install openssh-client on it",
        ) from error
    except subprocess.TimeoutExpired:
        done = subprocess.CompletedProcess(command, 1, "", "it took too long")
    keys = parse_keys(done.stdout)
    if not keys:
        said = " ".join(line for line in done.stderr.splitlines() if not line.startswith("#"))
        raise HostError(
            f"no ssh server shows its key at {address}, port {port}: {said or 'no answer'}",
            code="unreachable",
            hint="check power, network, address and port, and that sshd runs there",
        )
    return keys


@dataclass(frozen=True)
class AnsiblePlaybooks:
    """Implements ``ports.playbooks.Playbooks``.

    :param directory: for runs, each in a directory of its own that goes with it; private.
    :param wheelhouse: what hosts install from (``virtmgr wheelhouse``); made where there is none,
        or one of another virtmgr.
    :param server: https://ADDRESS:PORT where agents connect.
    :param addresses: of all control planes, which dial hosts; empty: those of ``server``'s name.
    """

    directory: Path
    wheelhouse: Path
    ca_file: Path
    server: str
    addresses: tuple[str, ...] = ()

    def scan(self, address: str, port: int) -> tuple[HostKey, ...]:
        return scan_keys(address, port)

    def prepare(self, say: Callable[[str], None]) -> None:
        if importlib.util.find_spec("ansible_runner") is None:
            raise Unavailable(
                "enrol a host: Ansible is not installed with this control plane",
                code="ansible_missing",
                hint="pip install 'virtmgr[enrollment]' on it, and start it again",
            )
        with self._locked("wheelhouse"):
            if is_current(self.wheelhouse):
                return
            say("making what hosts install from, once; this takes minutes")
            make_wheelhouse(self.wheelhouse, progress=say)

    def run(
        self, request: PlayRequest, report: Report, cancelled: Callable[[], bool]
    ) -> TaskFailed | None:
        directory = self.directory / request.id[-8:]
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        play = json.dumps(self._play(directory, request))
        with subprocess.Popen(
            [sys.executable, "-m", "virtmgr.enrollment.player", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(directory),
        ) as player:
            assert player.stdin is not None
            assert player.stdout is not None
            ended = threading.Event()
            watch = threading.Thread(target=_watch, args=(player.stdin, cancelled, ended))
            try:
                with suppress(BrokenPipeError):  # it has ended; what it said is yet to be read
                    player.stdin.write(play + "\n")
                    player.stdin.flush()
                watch.start()
                return _follow(player.stdout, report, request.host)
            finally:
                ended.set()
                if watch.ident is not None:
                    watch.join()
                with suppress(BrokenPipeError):
                    player.stdin.close()
                player.stdout.close()  # nothing that it still tells keeps it
                _wait(player)
                _end_strays(directory)
                shutil.rmtree(directory, ignore_errors=True)

    def clean(self) -> None:
        _end_strays(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Alone among threads and processes."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.directory.parent / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _play(self, directory: Path, request: PlayRequest) -> dict[str, Any]:
        """What the player is told: files to make, and how to call Ansible."""
        login = request.login
        files = {"known_hosts": request.host_key.known_hosts_line(request.address, request.port)}
        variables: dict[str, Any] = {
            "ansible_host": request.address,
            "ansible_port": request.port,
            "ansible_user": login.user,
            "virtmgr_host": request.host,
            "virtmgr_server": self.server,
            "virtmgr_ca_file": str(self.ca_file),
            "virtmgr_wheelhouse": str(self.wheelhouse),
            **request.variables,
        }
        if self.addresses:
            variables["virtmgr_control_plane_addresses"] = list(self.addresses)
        options = []
        if login.private_key is not None:
            files["key"] = login.private_key
            variables["ansible_ssh_private_key_file"] = str(directory / "key")
        for name, password in (
            ("connection", login.password),
            ("become", login.become_password or login.password),
        ):
            if password is not None:
                files[f"{name}-password"] = password
                options.append(f"--{name}-password-file={directory / name}-password")
        if request.join_token is not None:
            files["join-token"] = request.join_token
            variables["virtmgr_join_token_file"] = str(directory / "join-token")
        return {
            "playbook": f"virtmgr.core.{request.playbook}",
            "inventory": {"virtmgr_hosts": {"hosts": {request.host: variables}}},
            "files": files,
            "options": options,
            "environment": {
                "ANSIBLE_HOME": str(directory / "ansible"),
                "ANSIBLE_HOST_KEY_CHECKING": "True",
                "ANSIBLE_PIPELINING": "True",
                "ANSIBLE_NOCOLOR": "True",
                "ANSIBLE_TIMEOUT": "20",
                "ANSIBLE_SSH_ARGS": _SSH.format(known_hosts=directory / "known_hosts"),
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(directory / "cp"),
            },
        }


def _environment(directory: Path) -> Mapping[str, str]:
    """Nothing of ours but where programs are: the database's URL may have a password."""
    programs = Path(sys.executable).parent
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "TMPDIR": str(directory),
    }


def _watch(stdin: IO[str], cancelled: Callable[[], bool], ended: threading.Event) -> None:
    """The end of its input ends the player."""
    while not ended.wait(_LOOK):
        if cancelled():
            with suppress(BrokenPipeError):
                stdin.close()
            return


def _follow(output: IO[str], report: Report, host: str) -> TaskFailed | None:
    """Report what the player tells, to its end.

    :raises HostError: it did not run to its end.
    """
    found: tuple[dict[str, Any], ...] = ()
    failed: TaskFailed | None = None
    said, status = "", ""
    for line in output:
        if not line.endswith("\n"):
            break  # it was killed in mid-word
        event = json.loads(line)
        status, said = event.get("status", status), event.get("output", said)
        found = findings(event) or found
        for told in translate(event):
            if isinstance(told, TaskFailed):
                failed = told
            else:
                report(told)
    if status == "successful":
        return None
    if status == "failed" and failed is not None:
        return _with_findings(failed, found)
    raise _unfinished(host, status, said)


def _with_findings(failed: TaskFailed, found: tuple[dict[str, Any], ...]) -> TaskFailed:
    if failed.role != "preflight" or failed.unreachable:
        return failed
    return TaskFailed(failed.task, failed.role, failed.message, failed.stderr, findings=found)


def _unfinished(host: str, status: str, said: str) -> HostError:
    if status == "timeout":
        return HostError(
            f"host {host}: it took more than an hour and was ended",
            code="too_slow",
            hint="the operation's log says at which task; then 'virtmgr host retry " + host + "'",
        )
    if status == "failed":
        return HostError(
            f"host {host}: Ansible did not begin: {said or 'it said nothing'}",
            code="ansible_failed",
            hint="report this; the control plane's log has more",
        )
    return HostError(
        f"host {host}: the run was cut off",
        code="interrupted",
        hint=f"'virtmgr host retry {host}' goes on where it was",
    )


def _end_strays(directory: Path) -> None:
    """Kill what is at home below ``directory``: Ansible, where the player itself was killed."""
    homes = tuple(f"HOME={directory}{end}".encode() for end in ("/", "\0"))
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if any(b"\0" + home in b"\0" + file.read_bytes() for home in homes):
                os.kill(int(file.parent.name), signal.SIGKILL)


def _wait(player: subprocess.Popen[str]) -> None:
    try:
        player.wait(_END)
    except subprocess.TimeoutExpired:
        player.kill()
        player.wait()
