"""The context of one use case: who asks, in which project, in which transaction.

``open_context`` is the way to one, and it asks ``virtmgr.domain.access`` first: having a context is
the proof that its action is allowed on its project. ``go_on`` makes one for what was allowed when
it was asked for, and for what virtmgr does by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from virtmgr.domain.access import Action, Principal, Verdict, may, visible_projects
from virtmgr.domain.errors import Forbidden, NotFound, PreconditionFailed
from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import Event, Operation
from virtmgr.domain.project import NOWHERE, Origin, Project
from virtmgr.ports.unit_of_work import Repository, UnitOfWork
from virtmgr.services.container import Services


class Versioned(Protocol):
    """A resource whose changes are counted."""

    id: str
    version: int


V = TypeVar("V", bound=Versioned)


@dataclass(kw_only=True)
class Context:
    """One allowed use case. Make it with ``open_context``, or ``go_on``."""

    services: Services
    uow: UnitOfWork
    principal: Principal
    project: Project | None = None
    expected_versions: frozenset[int] | None = None  # If-Match; None: any
    version_checked: bool = False
    overtaken: bool = False  # an earlier try was: now wait for one's turn
    origin: Origin = NOWHERE
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.services.clock.now()

    @property
    def own_project(self) -> Project:
        """The project that the use case is about."""
        if self.project is None:
            raise AssertionError("this use case is not about one project")
        return self.project

    @property
    def visible(self) -> frozenset[str] | None:
        """Ids of the projects that the principal may see; None: all."""
        return visible_projects(self.principal)

    def shows(self, project_id: str | None) -> bool:
        """Whether the principal may see what is this project's, or (None) no project's."""
        visible = self.visible
        return visible is None or project_id in visible

    def allows(self, action: Action, project_id: str | None) -> bool:
        """Whether the principal may also do ``action``."""
        return may(self.principal, action, project_id) is Verdict.ALLOWED

    def require(self, action: Action, project_id: str | None, what: str) -> None:
        """Refuse unless the principal may do ``action`` on ``what`` as well.

        :raises NotFound: it may not even be seen.
        :raises Forbidden: it may be seen, but the role is too small.
        """
        demand(self.principal, action, project_id, what)

    def lock_hosts(self, *ids: str | None) -> None:
        """Lock hosts before anything that is on them; all of them where a try was overtaken."""
        if self.overtaken:
            self.uow.hosts.all(locked=True)
        else:
            self.uow.hosts.lock_all_of(id for id in ids if id is not None)

    def for_change(self, repository: Repository[V], entity: V | None, what: str) -> V:
        """``entity`` locked until the end of the transaction, its version as expected.

        :raises NotFound: there is none.
        :raises PreconditionFailed: somebody changed it since the caller read it.
        """
        locked = None if entity is None else repository.lock(entity.id)
        if locked is None:
            raise NotFound(f"{what} does not exist")
        self.check_version(locked.version, what)
        return locked

    def check_version(self, version: int, what: str) -> None:
        """Compare with the version that the caller expects (If-Match).

        :raises PreconditionFailed: they differ.
        """
        self.version_checked = True
        if self.expected_versions is not None and version not in self.expected_versions:
            raise PreconditionFailed(
                f"{what} was changed meanwhile: it is at version {version}",
                hint="read it again and repeat the change on what it is now",
                detail={"version": version},
            )

    @property
    def user_id(self) -> str | None:
        """Who asks; None: virtmgr itself."""
        return self.principal.user_id or None

    def record(
        self,
        type: str,
        target: Any,
        message: str,
        *,
        project_id: str | None = None,
        operation_id: str | None = None,
        host_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one line of the event log, in this transaction.

        :param type: ``NOUN.VERB``, such as ``network.created``; the noun is the target's type.
        :param target: the entity; its ``id``, ``name`` and ``project_id`` are taken.
        """
        self.uow.events.append(
            Event(
                at=self.now,
                type=type,
                target_type=type.partition(".")[0],
                target_id=target.id,
                target_name=getattr(target, "name", target.id),
                project_id=project_id or getattr(target, "project_id", None),
                user_id=self.user_id,
                operation_id=operation_id,
                host_id=host_id,
                message=message,
                data=dict(data or {}),
            )
        )

    def begin(
        self,
        verb: str,
        target_type: str,
        target: Any,
        *,
        generation: int = 0,
        parameters: Mapping[str, Any] | None = None,
    ) -> Operation:
        """A new pending operation on ``target``, in this transaction."""
        operation = self.operation(
            verb, target_type, target, generation=generation, parameters=parameters
        )
        self.uow.operations.add(operation)
        return operation

    def operation(
        self,
        verb: str,
        target_type: str,
        target: Any,
        *,
        generation: int = 0,
        parameters: Mapping[str, Any] | None = None,
    ) -> Operation:
        """The same, for the caller to add: several at once."""
        return Operation(
            id=new_id(),
            verb=verb,
            target_type=target_type,
            target_id=target.id,
            target_name=target.name,
            project_id=getattr(target, "project_id", None),
            user_id=self.user_id,
            generation=generation,
            parameters=dict(parameters or {}),
            created_at=self.now,
            updated_at=self.now,
        )


def demand(principal: Principal, action: Action, project_id: str | None, what: str) -> None:
    """Refuse unless ``principal`` may do ``action``; see ``Context.require``."""
    verdict = may(principal, action, project_id)
    if verdict is Verdict.HIDDEN:
        raise NotFound(f"{what} does not exist")
    if verdict is not Verdict.ALLOWED:
        raise Forbidden(
            f"{principal.name} may not {action.value} on {what}: the role is too small",
            hint="ask an administrator for a role binding that allows it",
        )


def open_context(
    services: Services,
    uow: UnitOfWork,
    principal: Principal,
    action: Action | None,
    *,
    project: str | None = None,
    expected_versions: frozenset[int] | None = None,
    overtaken: bool = False,
    origin: Origin = NOWHERE,
) -> Context:
    """Check that ``principal`` may do ``action`` and give the context to do it in.

    :param action: None for what everybody with a valid token may do on what is their own.
    :param project: id or name of the project that the use case is about.
    :raises NotFound: there is no such project, or it may not be seen.
    :raises Forbidden: the role is too small.
    """
    found: Project | None = None
    if project is not None:
        found = uow.projects.find(project)
        if found is None:
            raise NotFound(f"project {project!r} does not exist")
    if action is not None:
        what = "this resource" if project is None else f"project {project!r}"
        demand(principal, action, found.id if found else None, what)
    return Context(
        services=services,
        uow=uow,
        principal=principal,
        project=found,
        expected_versions=expected_versions,
        overtaken=overtaken,
        origin=origin,
    )


def go_on(services: Services, uow: UnitOfWork, user_id: str | None) -> Context:
    """The context of work that goes on after its request.

    :param user_id: who asked; None: virtmgr itself.
    """
    return Context(services=services, uow=uow, principal=Principal(user_id or "", "virtmgr"))
