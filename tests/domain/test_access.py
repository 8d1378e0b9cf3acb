"""Access: monotone in the role, narrowed by a token, closed by default."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.access import (
    RULES,
    Action,
    Principal,
    Scope,
    Verdict,
    may,
    visible_projects,
)
from virtmgr.domain.project import Role

ROLES = [Role.VIEWER, Role.MEMBER, Role.OPERATOR, Role.ADMIN]
roles = st.sampled_from(ROLES)
somewhere = st.sampled_from((None, "p", "q"))
actions = st.sampled_from(Action)
users = st.builds(
    Principal,
    user_id=st.just("u"),
    name=st.just("ada"),
    bindings=st.lists(st.tuples(roles, somewhere), max_size=3).map(tuple),
)
tokens = st.builds(
    dataclasses.replace,
    users,
    token_role=st.none() | roles,
    token_project_id=st.none() | st.sampled_from(("p", "q")),
)
_ORDER = [Verdict.HIDDEN, Verdict.FORBIDDEN, Verdict.ALLOWED]


def bound(role: Role, project_id: str | None = None) -> Principal:
    return Principal("u", "ada", ((role, project_id),))


def test_every_action_has_a_rule() -> None:
    assert set(RULES) == set(Action)


@given(actions, roles, roles, somewhere, somewhere)
def test_a_greater_role_may_no_less(
    action: Action, one: Role, other: Role, where: str | None, target: str | None
) -> None:
    small, great = sorted((one, other), key=ROLES.index)
    before, after = (may(bound(role, where), action, target) for role in (small, great))
    assert _ORDER.index(before) <= _ORDER.index(after)


@given(tokens, actions, somewhere, st.tuples(roles, somewhere))
def test_a_further_binding_takes_nothing_away(
    principal: Principal, action: Action, target: str | None, more: tuple[Role, str | None]
) -> None:
    richer = dataclasses.replace(principal, bindings=(*principal.bindings, more))
    assert _ORDER.index(may(principal, action, target)) <= _ORDER.index(may(richer, action, target))


@given(tokens, actions, somewhere)
def test_a_token_never_widens(principal: Principal, action: Action, target: str | None) -> None:
    user = dataclasses.replace(principal, token_role=None, token_project_id=None)
    assert _ORDER.index(may(principal, action, target)) <= _ORDER.index(may(user, action, target))
    seen, by_user = visible_projects(principal), visible_projects(user)
    assert by_user is None or (seen is not None and seen <= by_user)


@given(tokens, actions, somewhere)
def test_a_token_allows_no_more_than_its_own_role_and_project(
    principal: Principal, action: Action, target: str | None
) -> None:
    bounded = bound(principal.token_role or Role.ADMIN, principal.token_project_id)
    if may(principal, action, target) is Verdict.ALLOWED:
        assert may(bounded, action, target) is Verdict.ALLOWED


@given(tokens, st.sampled_from(("p", "q")))
def test_what_is_hidden_is_exactly_what_is_not_visible(principal: Principal, project: str) -> None:
    visible = visible_projects(principal)
    hidden = visible is not None and project not in visible
    for action in Action:
        assert (may(principal, action, project) is Verdict.HIDDEN) == hidden


@given(tokens, somewhere)
def test_an_unknown_action_is_refused(principal: Principal, target: str | None) -> None:
    assert may(principal, "workloads.teleport", target) is not Verdict.ALLOWED


@given(actions, somewhere)
def test_whoever_has_no_role_has_only_an_account(action: Action, target: str | None) -> None:
    allowed = may(Principal("u", "ada"), action, target) is Verdict.ALLOWED
    assert allowed == (RULES[action].scope is Scope.SELF and target is None)


@pytest.mark.parametrize(
    ("principal", "action", "target", "verdict"),
    [
        (bound(Role.VIEWER, "p"), Action.WORKLOADS_VIEW, "p", Verdict.ALLOWED),
        (bound(Role.VIEWER, "p"), Action.WORKLOADS_LOGS, "p", Verdict.ALLOWED),
        (bound(Role.VIEWER, "p"), Action.WORKLOADS_CREATE, "p", Verdict.FORBIDDEN),
        (bound(Role.ADMIN, "p"), Action.WORKLOADS_VIEW, "q", Verdict.HIDDEN),
        (bound(Role.MEMBER, "p"), Action.WORKLOADS_EXEC, "p", Verdict.ALLOWED),
        (bound(Role.VIEWER, "p"), Action.WORKLOADS_VIEW, None, Verdict.ALLOWED),
        (bound(Role.MEMBER, "p"), Action.WORKLOADS_CREATE, None, Verdict.FORBIDDEN),
        (bound(Role.VIEWER, "p"), Action.IMAGES_VIEW, None, Verdict.ALLOWED),
        (bound(Role.OPERATOR, "p"), Action.IMAGES_CREATE, None, Verdict.FORBIDDEN),
        (bound(Role.OPERATOR), Action.IMAGES_CREATE, None, Verdict.ALLOWED),
        (bound(Role.OPERATOR, "p"), Action.QUOTAS_UPDATE, "p", Verdict.FORBIDDEN),
        (bound(Role.OPERATOR, "p"), Action.PROJECTS_UPDATE, "p", Verdict.ALLOWED),
        (bound(Role.OPERATOR), Action.WORKLOADS_DELETE, "p", Verdict.ALLOWED),
        (bound(Role.OPERATOR), Action.USERS_VIEW, None, Verdict.FORBIDDEN),
        (bound(Role.ADMIN, "p"), Action.USERS_CREATE, None, Verdict.FORBIDDEN),
        (bound(Role.ADMIN), Action.USERS_CREATE, None, Verdict.ALLOWED),
        (bound(Role.MEMBER, "p"), Action.SHARED_NETWORKS_VIEW, None, Verdict.ALLOWED),
        (bound(Role.MEMBER, "p"), Action.SHARED_NETWORKS_UPDATE, None, Verdict.FORBIDDEN),
    ],
)
def test_examples(
    principal: Principal, action: Action, target: str | None, verdict: Verdict
) -> None:
    assert may(principal, action, target) is verdict


def test_a_narrowed_token_cannot_make_itself_a_wider_one() -> None:
    token = Principal("u", "ada", ((Role.ADMIN, None),), token_role=Role.VIEWER)
    assert may(token, Action.ACCOUNT_VIEW) is Verdict.ALLOWED
    assert may(token, Action.ACCOUNT_UPDATE) is Verdict.FORBIDDEN


def test_a_token_for_one_project_makes_an_admin_an_admin_of_it_only() -> None:
    token = Principal("u", "ada", ((Role.ADMIN, None),), token_project_id="p")
    assert visible_projects(token) == frozenset({"p"})
    assert may(token, Action.WORKLOADS_DELETE, "p") is Verdict.ALLOWED
    assert may(token, Action.WORKLOADS_VIEW, "q") is Verdict.HIDDEN
    assert may(token, Action.HOSTS_UPDATE) is Verdict.FORBIDDEN
