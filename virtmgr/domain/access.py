"""Who may do what: the one place that decides it.

Four roles, each including the ones below it: admin, operator, member, viewer. A role is bound
everywhere or in one project. A token narrows: to a smaller role, to one project, or both. Every
action stands in ``RULES`` with the smallest role for it and where that role must be held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from virtmgr.domain.project import Role

_RANK: Mapping[Role, int] = {Role.VIEWER: 1, Role.MEMBER: 2, Role.OPERATOR: 3, Role.ADMIN: 4}


class Action(StrEnum):
    """Everything that can be asked for, as NOUN.VERB."""

    ACCOUNT_VIEW = "account.view"  # whoami, schema, one's own tokens
    ACCOUNT_UPDATE = "account.update"  # one's own password and tokens
    PROJECTS_VIEW = "projects.view"
    PROJECTS_CREATE = "projects.create"
    PROJECTS_UPDATE = "projects.update"
    PROJECTS_DELETE = "projects.delete"
    QUOTAS_VIEW = "quotas.view"
    QUOTAS_UPDATE = "quotas.update"
    USERS_VIEW = "users.view"
    USERS_CREATE = "users.create"
    USERS_UPDATE = "users.update"
    USERS_DELETE = "users.delete"
    ROLE_BINDINGS_VIEW = "role_bindings.view"
    ROLE_BINDINGS_CREATE = "role_bindings.create"
    ROLE_BINDINGS_DELETE = "role_bindings.delete"
    TOKENS_VIEW = "tokens.view"  # of others
    TOKENS_CREATE = "tokens.create"
    TOKENS_DELETE = "tokens.delete"
    CLUSTERS_VIEW = "clusters.view"
    CLUSTERS_CREATE = "clusters.create"
    CLUSTERS_UPDATE = "clusters.update"
    CLUSTERS_DELETE = "clusters.delete"
    CLUSTERS_REBALANCE = "clusters.rebalance"  # moves workloads of all projects
    HOSTS_VIEW = "hosts.view"
    HOSTS_CREATE = "hosts.create"
    HOSTS_UPDATE = "hosts.update"  # cordon, drain, maintenance, … too
    HOSTS_DELETE = "hosts.delete"
    POOLS_VIEW = "pools.view"
    IMAGES_VIEW = "images.view"
    IMAGES_CREATE = "images.create"  # import, build, upload, publish
    IMAGES_UPDATE = "images.update"
    IMAGES_DELETE = "images.delete"
    NETWORKS_VIEW = "networks.view"
    NETWORKS_CREATE = "networks.create"
    NETWORKS_UPDATE = "networks.update"
    NETWORKS_DELETE = "networks.delete"
    SHARED_NETWORKS_VIEW = "shared_networks.view"  # of no project, for all of them
    SHARED_NETWORKS_CREATE = "shared_networks.create"
    SHARED_NETWORKS_UPDATE = "shared_networks.update"
    SHARED_NETWORKS_DELETE = "shared_networks.delete"
    VOLUMES_VIEW = "volumes.view"
    VOLUMES_CREATE = "volumes.create"
    VOLUMES_UPDATE = "volumes.update"
    VOLUMES_DELETE = "volumes.delete"
    WORKLOADS_VIEW = "workloads.view"  # usage and placement too
    WORKLOADS_CREATE = "workloads.create"
    WORKLOADS_UPDATE = "workloads.update"  # attach and detach too
    WORKLOADS_DELETE = "workloads.delete"
    WORKLOADS_POWER = "workloads.power"  # start, stop, restart, pause, resume
    WORKLOADS_EXEC = "workloads.exec"
    WORKLOADS_CONSOLE = "workloads.console"
    WORKLOADS_VNC = "workloads.vnc"
    WORKLOADS_LOGS = "workloads.logs"
    WORKLOADS_FILES = "workloads.files"
    WORKLOADS_MOVE = "workloads.move"  # to another host
    MIGRATIONS_VIEW = "migrations.view"
    FAILOVERS_VIEW = "failovers.view"
    OPERATIONS_VIEW = "operations.view"
    EVENTS_VIEW = "events.view"
    CA_VIEW = "ca.view"
    CA_UPDATE = "ca.update"  # change it for another one


class Scope(StrEnum):
    """Where the role for an action must be held."""

    SELF = "self"  # nowhere: it is about the principal itself
    PROJECT = "project"  # in the project, or everywhere
    ANYWHERE = "anywhere"  # in any project: what all projects share
    GLOBAL = "global"  # everywhere


class Verdict(StrEnum):
    """The answer. ``HIDDEN`` is told as "not found": one does not even learn that it is there."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    HIDDEN = "hidden"


@dataclass(frozen=True)
class Rule:
    """The smallest role for an action, and where it must be held."""

    role: Role
    scope: Scope


_TABLE: tuple[tuple[Role, Scope, str], ...] = (
    (Role.VIEWER, Scope.SELF, "account.view account.update"),
    (Role.VIEWER, Scope.PROJECT, "projects.view quotas.view networks.view volumes.view"),
    (Role.VIEWER, Scope.PROJECT, "workloads.view workloads.logs operations.view events.view"),
    (Role.VIEWER, Scope.ANYWHERE, "clusters.view hosts.view pools.view images.view"),
    (Role.VIEWER, Scope.ANYWHERE, "shared_networks.view ca.view"),
    (Role.MEMBER, Scope.PROJECT, "networks.create networks.update networks.delete"),
    (Role.MEMBER, Scope.PROJECT, "volumes.create volumes.update volumes.delete"),
    (Role.MEMBER, Scope.PROJECT, "workloads.create workloads.update workloads.delete"),
    (Role.MEMBER, Scope.PROJECT, "workloads.power workloads.exec workloads.console"),
    (Role.MEMBER, Scope.PROJECT, "workloads.vnc workloads.files"),
    (Role.VIEWER, Scope.PROJECT, "migrations.view failovers.view"),
    (Role.OPERATOR, Scope.PROJECT, "projects.update workloads.move"),
    # A quota limits the project: whoever is an operator only in it cannot lift it.
    (Role.OPERATOR, Scope.GLOBAL, "projects.create projects.delete quotas.update"),
    (Role.OPERATOR, Scope.GLOBAL, "clusters.create clusters.update clusters.delete"),
    (Role.OPERATOR, Scope.GLOBAL, "clusters.rebalance"),
    (Role.OPERATOR, Scope.GLOBAL, "hosts.create hosts.update hosts.delete"),
    (Role.OPERATOR, Scope.GLOBAL, "images.create images.update images.delete"),
    (Role.OPERATOR, Scope.GLOBAL, "shared_networks.create shared_networks.update"),
    (Role.OPERATOR, Scope.GLOBAL, "shared_networks.delete"),
    (Role.ADMIN, Scope.GLOBAL, "users.view users.create users.update users.delete"),
    (Role.ADMIN, Scope.GLOBAL, "role_bindings.view role_bindings.create role_bindings.delete"),
    (Role.ADMIN, Scope.GLOBAL, "tokens.view tokens.create tokens.delete ca.update"),
)
RULES: Final[Mapping[Action, Rule]] = {
    Action(name): Rule(role, scope) for role, scope, names in _TABLE for name in names.split()
}


@dataclass(frozen=True)
class Principal:
    """Whoever asks: a user, with the roles bound to it, through a token that may narrow them."""

    user_id: str
    name: str
    bindings: tuple[tuple[Role, str | None], ...] = ()
    """(role, project id); None for everywhere."""
    token_role: Role | None = None
    token_project_id: str | None = None

    @property
    def narrowed(self) -> bool:
        """Whether the token may do less than its user."""
        return self.token_role is not None or self.token_project_id is not None

    @cached_property
    def ranks(self) -> Mapping[str | None, int]:
        """The rank of the greatest role held in each project, and (None) everywhere."""
        found: dict[str | None, int] = {}
        for role, project_id in self.bindings:
            if self.token_project_id is not None:
                if project_id not in (None, self.token_project_id):
                    continue
                project_id = self.token_project_id
            rank = min(_RANK[role], _RANK[self.token_role or role])
            found[project_id] = max(rank, found.get(project_id, 0))
        return found


def may(principal: Principal, action: Action | str, project_id: str | None = None) -> Verdict:
    """Whether ``principal`` may do ``action``.

    :param project_id: the project of the thing that it is about. None for what belongs to no
        project, and for seeing all projects' things at a time: the answer then shows only those
        of ``visible_projects``.

    Something in a project that the principal has no role in is ``HIDDEN``, and so is the project.
    Whatever belongs to no project is known to be there, so it is never hidden. An action that is
    not in the table is refused.
    """
    rule = RULES.get(Action(action)) if action in _NAMES else None
    if project_id is not None and not _rank(principal, project_id):
        return Verdict.HIDDEN
    if rule is None or not _holds(principal, rule, project_id):
        return Verdict.FORBIDDEN
    if action == Action.ACCOUNT_UPDATE and principal.narrowed:
        return Verdict.FORBIDDEN  # else a token could make itself a wider one
    return Verdict.ALLOWED


def visible_projects(principal: Principal) -> frozenset[str] | None:
    """The projects whose things the principal may see; None: all of them."""
    if None in principal.ranks:
        return None
    return frozenset(project_id for project_id in principal.ranks if project_id is not None)


_NAMES = frozenset(str(action) for action in Action)


def _holds(principal: Principal, rule: Rule, project_id: str | None) -> bool:
    needed = _RANK[rule.role]
    anywhere = max(principal.ranks.values(), default=0)
    everywhere = principal.ranks.get(None, 0)
    if rule.scope is Scope.SELF:
        return True
    if rule.scope is Scope.GLOBAL:
        return everywhere >= needed
    if rule.scope is Scope.PROJECT and project_id is not None:
        return _rank(principal, project_id) >= needed
    if rule.scope is Scope.PROJECT and rule.role is not Role.VIEWER:
        return everywhere >= needed  # to change what belongs to no project
    return anywhere >= needed


def _rank(principal: Principal, project_id: str) -> int:
    return max(principal.ranks.get(project_id, 0), principal.ranks.get(None, 0))
