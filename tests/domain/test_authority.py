"""Changing the CA cuts nobody off, whatever hosts do meanwhile and in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from virtmgr.domain.authority import (
    SETTLING,
    Authorities,
    HostTrust,
    Phase,
    check_retire,
    check_rotate,
    holding_up,
    may_replace,
)
from virtmgr.domain.errors import Conflict

_LONG = SETTLING * 2
_HOSTS = st.sampled_from(["h1", "h2", "h3"])


@dataclass
class _Host:
    """What is on a host, and what the control plane knows of it."""

    trusts: tuple[str, ...] = ("ca0",)
    issuer: str = "ca0"
    known: HostTrust = field(default_factory=lambda: HostTrust("", False, ("ca0",), "ca0"))


class Change(RuleBasedStateMachine):
    """Hosts sync, renew, fall silent and come back while the CA is changed again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.present = Authorities(Phase.STEADY, "ca0")
        self.made = 0
        self.hosts = {name: _Host() for name in ("h1", "h2", "h3")}
        for name, host in self.hosts.items():
            host.known = replace(host.known, name=name)

    @property
    def known(self) -> list[HostTrust]:
        return [host.known for host in self.hosts.values()]

    @rule()
    def rotate(self) -> None:
        if self.present.phase is not Phase.STEADY:
            with pytest.raises(Conflict, match="already"):
                check_rotate(self.present)
            return
        check_rotate(self.present)
        self.made += 1
        self.present = Authorities(Phase.SPREADING, self.present.issuing, f"ca{self.made}")

    @rule(age=st.sampled_from([timedelta(0), _LONG]))
    def advance(self, age: timedelta) -> None:
        if may_replace(self.present, self.known, age):
            assert age >= SETTLING
            assert self.present.other is not None
            self.present = Authorities(Phase.REPLACING, self.present.other, self.present.issuing)

    @rule(age=st.sampled_from([timedelta(0), _LONG]))
    def retire(self, age: timedelta) -> None:
        try:
            left = check_retire(self.present, self.known, age, force=False)
        except Conflict:
            return
        assert left == ()
        self.present = Authorities(Phase.STEADY, self.present.issuing)

    @rule(name=_HOSTS)
    def sync(self, name: str) -> None:
        """It says what it trusts, and is told what to trust."""
        host = self.hosts[name]
        host.known = replace(host.known, silent=False, trusted=host.trusts)
        host.trusts = self.present.trusted

    @rule(name=_HOSTS, answer_is_lost=st.booleans())
    @precondition(lambda self: any(not host.known.silent for host in self.hosts.values()))
    def renew(self, name: str, answer_is_lost: bool) -> None:
        host = self.hosts[name]
        if host.known.silent or host.issuer == host.trusts[0]:
            return
        host.known = replace(host.known, issuer=self.present.issuing, unused=True)
        if not answer_is_lost:
            host.issuer = self.present.issuing

    @rule(name=_HOSTS)
    def use(self, name: str) -> None:
        """The first use of a new certificate tells the control plane that it came."""
        host = self.hosts[name]
        if not host.known.silent and host.issuer == host.known.issuer:
            host.known = replace(host.known, unused=False)

    @rule(name=_HOSTS)
    def fall_silent(self, name: str) -> None:
        host = self.hosts[name]
        host.known = replace(host.known, silent=True)

    @invariant()
    def every_host_can_verify_the_control_plane(self) -> None:
        """By the CA that issues, or by the one of before, which has signed for it."""
        for host in self.hosts.values():
            shown = {self.present.issuing}
            if self.present.phase is Phase.REPLACING:
                shown |= {self.present.other or ""}
            assert shown & set(host.trusts)

    @invariant()
    def every_host_is_let_in(self) -> None:
        assert all(host.issuer in self.present.trusted for host in self.hosts.values())

    @invariant()
    def while_it_spreads_only_hosts_that_speak_hold_it_up(self) -> None:
        if self.present.phase is Phase.SPREADING:
            silent = {host.name for host in self.known if host.silent}
            assert not silent & {each.name for each in holding_up(self.present, self.known)}


TestChange = Change.TestCase
TestChange.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

_REPLACING = Authorities(Phase.REPLACING, "new", "old")
_WHOLE = HostTrust("h1", silent=False, trusted=("new", "old"), issuer="new")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (replace(_WHOLE, trusted=None), "older version"),
        (replace(_WHOLE, trusted=("old",)), "trust the next CA"),
        (replace(_WHOLE, issuer="old"), "certificate of the CA of before"),
        (replace(_WHOLE, issuer=None), "certificate of the CA of before"),
        (replace(_WHOLE, unused=True), "has not used"),
        (replace(_WHOLE, silent=True, issuer="old"), "it is silent and has a certificate"),
    ],
)
def test_who_depends_on_the_ca_of_before_is_named_and_given_up_by_force_only(
    host: HostTrust, words: str
) -> None:
    with pytest.raises(Conflict) as refused:
        check_retire(_REPLACING, [_WHOLE, host], _LONG, force=False)
    assert refused.value.code == "still_depended_on"
    assert words in refused.value.message
    (left,) = check_retire(_REPLACING, [_WHOLE, host], _LONG, force=True)
    assert words in left.reason
    assert check_retire(_REPLACING, [_WHOLE], _LONG, force=False) == ()


@pytest.mark.parametrize("phase", [Phase.STEADY, Phase.SPREADING])
def test_what_still_issues_is_not_retired_even_by_force(phase: Phase) -> None:
    with pytest.raises(Conflict) as refused:
        check_retire(Authorities(phase, "old", "new"), [], _LONG, force=True)
    assert refused.value.code == "nothing_to_retire"


def test_control_planes_have_time_to_look() -> None:
    with pytest.raises(Conflict, match="may not have taken up"):
        check_retire(_REPLACING, [], timedelta(seconds=1), force=True)
    spreading = Authorities(Phase.SPREADING, "old", "new")
    assert not may_replace(spreading, [], timedelta(seconds=1))
    assert may_replace(spreading, [], SETTLING)
