"""What is offered to whom. The API decides; this only leaves out what it would refuse. Pure.

``NEEDED`` says for each page and button what the API is going to be asked for; what stands there is
held against the console's source and the API's routes by ``tests/console/test_rights.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from virtmgr.domain.access import RULES, Action, Principal, Scope, Verdict, may
from virtmgr.domain.project import Role

_TABLE: Final[tuple[tuple[Action, str], ...]] = (
    (Action.ACCOUNT_UPDATE, "account.end_others account.make_token account.revoke"),
    (Action.ACCOUNT_UPDATE, "account.set_password"),
    (Action.CLUSTERS_CREATE, "clusters.create clusters.create_form"),
    (Action.CLUSTERS_UPDATE, "clusters.edit clusters.save"),
    (Action.CLUSTERS_DELETE, "clusters.delete"),
    (Action.CLUSTERS_REBALANCE, "rebalancing.cancel rebalancing.rebalance rebalancing.plan"),
    (Action.HOSTS_CREATE, "host_add.add host_add.again host_add.keys host_add.machines"),
    (Action.HOSTS_CREATE, "host_add.make_token host_add.run_again host_add.scan"),
    (Action.HOSTS_CREATE, "host_add.token_form hosts.join_token hosts.make_join_token"),
    (Action.HOSTS_UPDATE, "host_drain.cancel host_drain.drain host_drain.plan host_drain.show"),
    (Action.HOSTS_UPDATE, "host_fencing.delete host_fencing.fence host_fencing.put"),
    (Action.HOSTS_UPDATE, "host_fencing.show host_fencing.test"),
    (Action.HOSTS_UPDATE, "hosts.confirm_off hosts.cordon hosts.uncordon hosts.maintenance"),
    (Action.HOSTS_UPDATE, "hosts.edit hosts.save"),
    (Action.HOSTS_DELETE, "hosts.confirm_remove hosts.remove"),
    (Action.IMAGES_CREATE, "images.begin_build images.begin_import images.build images.import_"),
    (Action.IMAGES_CREATE, "images.search"),
    (Action.IMAGES_CREATE, "uploads.append uploads.begin uploads.discard uploads.import_"),
    (Action.IMAGES_CREATE, "uploads.show uploads.offset"),
    (Action.IMAGES_UPDATE, "images.change images.edit"),
    (Action.IMAGES_DELETE, "images.begin_prune images.prune images.delete"),
    (Action.NETWORKS_CREATE, "networks.create networks.make"),
    (Action.NETWORKS_UPDATE, "networks.change networks.edit"),
    (Action.NETWORKS_DELETE, "networks.delete"),
    (Action.PROJECTS_CREATE, "projects.create projects.make"),
    (Action.PROJECTS_UPDATE, "projects.change projects.edit"),
    (Action.PROJECTS_DELETE, "projects.delete"),
    (Action.QUOTAS_UPDATE, "projects.change_quota projects.quota"),
    (Action.ROLE_BINDINGS_CREATE, "projects.add_member users.give_role"),
    (Action.ROLE_BINDINGS_DELETE, "projects.remove_member users.take_role"),
    (Action.CA_UPDATE, "settings.retire settings.rotate"),
    (Action.USERS_VIEW, "users.list_ users.show"),
    (Action.USERS_CREATE, "users.create users.make"),
    (Action.USERS_UPDATE, "users.change users.set_password"),
    (Action.USERS_DELETE, "users.delete"),
    (Action.TOKENS_CREATE, "users.make_token"),
    (Action.TOKENS_DELETE, "users.revoke"),
    (Action.VOLUMES_CREATE, "volumes.create volumes.make"),
    (Action.VOLUMES_UPDATE, "volumes.change volumes.edit"),
    (Action.VOLUMES_DELETE, "volumes.delete"),
    (Action.WORKLOADS_UPDATE, "volumes.attach volumes.detach"),
    (Action.WORKLOADS_CREATE, "workload_create.change workload_create.create"),
    (Action.WORKLOADS_CREATE, "workload_create.preview workload_create.show"),
    (Action.WORKLOADS_CREATE, "workload_actions.ask_clone workload_actions.clone"),
    (Action.IMAGES_CREATE, "workload_actions.ask_publish workload_actions.publish"),
    (Action.WORKLOADS_FILES, "workload_actions.ask_publish workload_actions.publish"),
    (Action.WORKLOADS_FILES, "files.show files.download files.upload"),
    (Action.WORKLOADS_MOVE, "workload_actions.ask_move workload_actions.move"),
    (Action.WORKLOADS_MOVE, "migrations.cancel"),
    (Action.WORKLOADS_DELETE, "workload_actions.delete"),
    (Action.WORKLOADS_POWER, "workload_actions.ask_stop workload_actions.stop"),
    (Action.WORKLOADS_POWER, "workload_actions.start workload_actions.restart"),
    (Action.WORKLOADS_POWER, "workload_actions.pause workload_actions.resume"),
    (Action.WORKLOADS_POWER, "workload_bulk.review workload_bulk.step workload_bulk.outcomes"),
    (Action.WORKLOADS_UPDATE, "workload_actions.add_port workload_actions.remove_port"),
    (Action.WORKLOADS_UPDATE, "workload_actions.attach_nic workload_actions.detach_nic"),
    (Action.WORKLOADS_UPDATE, "workload_actions.attach_volume workload_actions.detach_volume"),
    (Action.WORKLOADS_UPDATE, "workload_spec.ask_edit workload_spec.edit workload_spec.save_yaml"),
)


def _needed() -> dict[str, tuple[Action, ...]]:
    found: dict[str, tuple[Action, ...]] = {}
    for action, endpoints in _TABLE:
        for endpoint in endpoints.split():
            found[endpoint] = (*found.get(endpoint, ()), action)
    return found


NEEDED: Final[Mapping[str, tuple[Action, ...]]] = _needed()
"""By the name of the page, or of what a button asks for: all that it takes."""

SCREENS: Final[Mapping[str, Action]] = {
    "display": Action.WORKLOADS_VNC,
    "serial": Action.WORKLOADS_CONSOLE,
    "shell": Action.WORKLOADS_EXEC,
    "log": Action.WORKLOADS_LOGS,
}

VERBS: Final[Mapping[str, Action]] = {
    **dict.fromkeys(("start", "stop", "restart", "pause", "resume"), Action.WORKLOADS_POWER),
    "delete": Action.WORKLOADS_DELETE,
    "update": Action.WORKLOADS_UPDATE,
    "clone": Action.WORKLOADS_CREATE,
    "vnc": Action.WORKLOADS_VNC,
    "exec": Action.WORKLOADS_EXEC,
}
"""Verbs of workloads, as ``verbs.refusals`` names them; some screen is open to whoever sees one."""

_SHARED: Final[Mapping[Action, Action]] = {
    Action.NETWORKS_CREATE: Action.SHARED_NETWORKS_CREATE,
    Action.NETWORKS_UPDATE: Action.SHARED_NETWORKS_UPDATE,
    Action.NETWORKS_DELETE: Action.SHARED_NETWORKS_DELETE,
}
"""What belongs to a project or to all of them: its action where it belongs to all."""


@dataclass(frozen=True)
class Rights:
    """What somebody may do; ``who`` is the API's whoami."""

    who: Mapping[str, Any]

    @cached_property
    def _principal(self) -> Principal:
        """Projects go by their names here, as in addresses."""
        narrowed = self.who["token_project"]
        role = self.who["token_role"]
        return Principal(
            user_id=self.who["user"]["id"],
            name=self.who["user"]["name"],
            bindings=tuple((Role(one["role"]), _name(one["project"])) for one in self.who["roles"]),
            token_role=Role(role) if role else None,
            token_project_id=_name(narrowed),
        )

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """Names of the projects that somebody has a role in, by id."""
        known = [one["project"] for one in self.who["roles"]] + [self.who["token_project"]]
        return {one["id"]: one["name"] for one in known if one is not None}

    def allows(self, action: Action | str, project: str | None = None) -> bool:
        """Whether an action is allowed on what is in a project, or in none (None)."""
        known = project if project is None else self._names.get(project, project)
        return may(self._principal, action, known) is Verdict.ALLOWED

    def somewhere(self, action: Action | str) -> bool:
        """Whether an action is allowed on what belongs to no project, or in any project."""
        projects = (project for project in self._principal.ranks if project is not None)
        return self.allows(action) or any(self.allows(action, project) for project in projects)

    def reaches(self, endpoint: str, values: Mapping[str, Any]) -> bool:
        """Whether what a page or button asks for is allowed.

        :param values: the variable parts of its address.
        """
        return all(self._reaches(action, values) for action in NEEDED.get(endpoint, ()))

    def sees(self, project: str) -> bool:
        """Whether somebody has a role in a project: else it is not even known to be there."""
        return self.allows(Action.PROJECTS_VIEW, project)

    def _reaches(self, action: Action, values: Mapping[str, Any]) -> bool:
        shared = _SHARED.get(action)
        if shared is not None and values.get("network") and "project" not in values:
            return self.allows(shared)
        if RULES[action].scope is not Scope.PROJECT:
            return self.allows(action)
        if "project" in values:
            return self.allows(action, values["project"])
        return self.somewhere(action) or (shared is not None and self.allows(shared))

    def refusals(self, project: str) -> Mapping[str, str]:
        """Each verb of workloads that is not allowed in a project, with the reason."""
        return {
            verb: f"it takes the role {RULES[action].role} in {project}"
            for verb, action in VERBS.items()
            if not self.allows(action, project)
        }


def missing(endpoint: str) -> str:
    """What somebody lacks who does not reach a page, for people."""
    rules = [RULES[action] for action in NEEDED[endpoint]]
    where = {Scope.GLOBAL: "everywhere", Scope.PROJECT: "in the project"}
    return " and ".join(f"the role {one.role} {where.get(one.scope, '')}".strip() for one in rules)


def only(screens: Iterable[Any], rights: Rights, project: str) -> tuple[Any, ...]:
    """Those screens of a workload that somebody may open."""
    return tuple(one for one in screens if rights.allows(SCREENS[one.name], project))


def _name(project: Mapping[str, Any] | None) -> str | None:
    return None if project is None else str(project["name"])
