"""A failure says what it means and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.installation import TaskFailed, explain, share_done, tail

_UNREACHABLE = "Failed to connect to the host via ssh: "


@pytest.mark.parametrize(
    ("said", "unreachable", "code"),
    [
        ("ssh: connect to host h1 port 22: Connection timed out", True, "unreachable"),
        ("ssh: connect to host h1 port 22: No route to host", True, "unreachable"),
        ("something that nobody has seen before", True, "unreachable"),
        ("root@h1: Permission denied (publickey).", True, "login_refused"),
        ("Invalid/incorrect password: Permission denied", True, "login_refused"),
        ("Host key verification failed.", True, "host_key_changed"),
        ("Task failed: Incorrect sudo password", False, "sudo_password"),
        ("Missing sudo password", False, "sudo_password"),
        ("sudo: a password is required", False, "sudo_password"),
        ("joe is not in the sudoers file.", False, "not_a_sudoer"),
        ("/bin/sh: 1: sudo: not found", False, "no_sudo"),
        ("/bin/sh: 1: /usr/bin/python3: not found", False, "no_python"),
        ("Could not get lock /var/lib/dpkg/lock-frontend", False, "packages_locked"),
        ("E: Failed to fetch http://deb.debian.org/… 404", False, "packages_unavailable"),
        ("No package matching 'crun' is available", False, "packages_unavailable"),
        ("write error: No space left on device", False, "disk_full"),
        (
            "machine h2 (id 1) asks as host 'h2', and is host 'h1' already",
            False,
            "machine_enrolled",
        ),
        ("The agent has not reached the control plane in 120 s", False, "agent_not_ready"),
        ("permission denied", False, "task_failed"),  # on the machine, not at its door
        ("", False, "task_failed"),
    ],
)
def test_known_failures_are_recognised(said: str, unreachable: bool, code: str) -> None:
    prefix = _UNREACHABLE if unreachable else ""
    error = explain(
        TaskFailed("Install packages", message=prefix + said, unreachable=unreachable), "h1"
    )
    assert error.code == code
    assert "h1" in error.message
    assert error.hint
    assert error.detail["task"] == "Install packages"


def test_what_a_program_wrote_is_looked_at_too() -> None:
    failed = TaskFailed("Join", "certificates", "non-zero return code", "is host 'h1' already")
    assert explain(failed, "h2").code == "machine_enrolled"


def test_all_findings_of_a_preflight_are_told_at_once() -> None:
    found: tuple[dict[str, Any], ...] = (
        {"severity": "error", "what": "memory", "message": "512 MiB", "hint": "add some"},
        {"severity": "error", "what": "clock", "message": "an hour off", "hint": "set it"},
    )
    error = explain(TaskFailed("Refuse", "preflight", "…", findings=found), "h1")
    assert error.code == "preflight_failed"
    assert "512 MiB" in error.message
    assert "an hour off" in error.message
    assert error.detail["findings"] == list(found)


@given(st.text(), st.text(), st.booleans())
def test_every_failure_is_explained(message: str, stderr: str, unreachable: bool) -> None:
    error = explain(TaskFailed("t", "r", message, stderr, unreachable), "h1")
    assert error.message
    assert error.code
    assert error.hint


def test_progress_grows_from_role_to_role() -> None:
    roles = ["preflight", "packages", "kernel", "libvirt", "agent", "firewall", "certificates"]
    shares = [share_done(role) for role in roles]
    assert shares == sorted(set(shares))
    assert shares[0] == share_done("services") == 0
    assert shares[-1] < 1


def test_the_end_of_a_long_text_is_kept() -> None:
    assert tail("a" * 5000 + "the reason").endswith("the reason")
    assert len(tail("a" * 5000)) <= 2001
