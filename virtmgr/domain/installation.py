"""Making a machine a host: how far a run of a playbook is, and why it failed. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from virtmgr.domain.errors import HostError

_ROLES: Final = (
    "preflight",
    "packages",
    "kernel",
    "storage",
    "network",
    "containers",
    "libvirt",
    "agent",
    "firewall",
    "certificates",
)
"""In their order; each with about the same share of the time, but for packages and the agent."""
_SHARES: Final = dict(zip(_ROLES, (3, 40, 2, 1, 1, 1, 4, 30, 3, 15), strict=True))


@dataclass(frozen=True)
class TaskFailed:
    """A task of a playbook that failed, or could not be tried."""

    task: str
    role: str = ""
    message: str = ""
    stderr: str = ""
    unreachable: bool = False
    findings: Sequence[dict[str, Any]] = field(default=())  # preflight's, all of them


@dataclass(frozen=True)
class _Known:
    """A failure that is recognised by a pattern in what the task said."""

    code: str
    pattern: str
    meaning: str
    hint: str
    unreachable: bool | None = None


_KNOWN: Final = (
    _Known(
        "host_key_changed",
        r"host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its ssh server shows another key than the one that was agreed on",
        "find out whether the machine was installed anew; then give its new key",
        unreachable=True,
    ),
    _Known(
        "login_refused",
        r"permission denied|authentication fail|too many authentication"
        r"|invalid/incorrect password",
        "its ssh server refuses this user with these credentials",
        "check user, key or password: 'ssh USER@ADDRESS' must work; most distributions refuse root "
        "with a password",
        unreachable=True,
    ),
    _Known(
        "unreachable",
        r"timed out|timeout|no route to host|connection refused|could not resolve|closed|reset"
        r"|broken pipe|not responding",
        "it does not answer by ssh, or went away",
        "check power, network, address and port, then try again: what is done already is kept",
        unreachable=True,
    ),
    _Known(
        "sudo_password",
        r"(missing|incorrect|no) (sudo|become) password|sudo: a password is required"
        r"|timeout \(\d+s\) waiting for privilege|a terminal is required",
        "sudo wants a password, and none or a wrong one was given",
        "give the user's sudo password (--become-password-file or --ask-become-password), or let "
        "the user use sudo without one",
    ),
    _Known(
        "not_a_sudoer",
        r"not in the sudoers file|may not run sudo|not allowed to execute",
        "the user may not become root by sudo",
        "log in as root, or let the user use sudo",
    ),
    _Known(
        "no_sudo",
        r"sudo: (command )?not found|unable to find.*sudo",
        "there is no sudo on the machine",
        "install sudo, or log in as root",
    ),
    _Known(
        "no_python",
        r"python.*(not found|no such file)|failed to (discover|find).*python",
        "there is no Python 3 on the machine, which Ansible needs",
        "install python3 on it",
    ),
    _Known(
        "packages_locked",
        r"could not get lock|unable to (acquire|lock).*(dpkg|frontend)|dpkg was interrupted"
        r"|waiting for.*lock",
        "another program installs packages on the machine, or was cut off doing so",
        "wait for it (often unattended-upgrades), or run 'dpkg --configure -a', then try again",
    ),
    _Known(
        "disk_full",
        r"no space left on device|not enough free space|you don't have enough free space",
        "a disk of the machine is full",
        "make room on it, then try again",
    ),
    _Known(
        "packages_unavailable",
        r"failed to fetch|unable to (locate|fetch)|no package matching|temporary failure resolving"
        r"|failed to update apt cache|no package .* available"
        r"|cannot (download|prepare).*(repo|metadata)",
        "packages of its distribution cannot be had",
        "check the machine's package sources, proxy and DNS: 'apt-get update' (or 'dnf makecache') "
        "must work on it",
    ),
    _Known(
        "machine_enrolled",
        r"machine_enrolled|is host '[^']*' already",
        "this machine is a host already",
        "use the host that it is, or remove that one first; a clone of a machine needs a machine "
        "id of its own",
    ),
    _Known(
        "agent_not_ready",
        r"agent has not reached the control plane",
        "the agent is installed, and does not reach the control plane",
        "check the way from the machine to the control plane's agent port, and the agent's log",
    ),
)


def explain(failed: TaskFailed, host: str) -> HostError:
    """What a failed task means and what to do about it."""
    said = "\n".join(part for part in (failed.message, failed.stderr) if part).strip()
    where = f"task {failed.task!r}" + (f" of {failed.role}" if failed.role else "")
    detail = {"task": failed.task, "role": failed.role, "stderr": tail(failed.stderr)}
    if failed.findings:
        return HostError(
            f"host {host}: the machine cannot be a host yet:\n" + _findings(failed.findings),
            code="preflight_failed",
            hint="put these right, then 'virtmgr host retry " + host + "'",
            detail={**detail, "findings": list(failed.findings)},
        )
    for known in _KNOWN:
        if known.unreachable is not None and known.unreachable is not failed.unreachable:
            continue
        if re.search(known.pattern, said, re.IGNORECASE):
            message = f"host {host}: {known.meaning}; {where} said: {tail(said)}"
            return HostError(message, code=known.code, hint=known.hint, detail=detail)
    if failed.unreachable:
        return HostError(
            f"host {host}: it does not answer by ssh; {where} said: {tail(said)}",
            code="unreachable",
            hint="check power, network, address and port, then try again",
            detail=detail,
        )
    return HostError(
        f"host {host}: {where} failed: {tail(said)}",
        code="task_failed",
        hint="the operation's log has every task (virtmgr operation log ID); put it right and "
        f"'virtmgr host retry {host}'",
        detail=detail,
    )


def _findings(findings: Sequence[dict[str, Any]]) -> str:
    return "\n".join(
        f"- {each.get('severity')}: {each.get('what')}: {each.get('message')}. "
        f"To do: {each.get('hint')}."
        for each in findings
    )


def tail(text: str, most: int = 2000) -> str:
    """The end of a text, which is where programs say what is wrong."""
    text = text.strip()
    return text if len(text) <= most else "…" + text[-most:]


def share_done(role: str) -> float:
    """How far a run is when it begins a role, from 0 to 1; 0 where the role is none of ours."""
    done = 0
    for name, share in _SHARES.items():
        if name == role:
            return done / sum(_SHARES.values())
        done += share
    return 0.0
