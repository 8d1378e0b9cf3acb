"""``role``: who may do what, where."""

from __future__ import annotations

import click

from virtmgr.cli.client import Json, segment
from virtmgr.cli.command import group, output_option
from virtmgr.cli.crud import Noun, add_list, finish
from virtmgr.cli.output import Column, age, at, column
from virtmgr.cli.session import Session, pass_session
from virtmgr.domain.errors import NotFound

ROLES = ("admin", "operator", "member", "viewer")


NOUN = Noun(
    "role binding",
    "role-bindings",
    (
        column("ID", "id"),
        column("USER", "user.name"),
        column("ROLE", "role"),
        Column("PROJECT", lambda item: at(item, "project.name") or "(everywhere)"),
        column("AGE", "created_at", shown=age),
    ),
)


@group("role")
def role() -> None:
    """Roles: admin, operator, member, viewer, each with what the next may."""


add_list(role, NOUN, "user", "project")


@role.command("bind")
@click.argument("user")
@click.argument("role_name", metavar="ROLE", type=click.Choice(ROLES))
@click.option("--project", "-p", help="Only in this project. Default: everywhere.")
@output_option
@pass_session
def bind(session: Session, user: str, role_name: str, project: str | None) -> None:
    """Give USER a role, in one project or everywhere."""
    body = {"user": user, "role": role_name, **({"project": project} if project else {})}
    where = f"in project {project}" if project else "everywhere"
    answer = session.client.post("/role-bindings", body)
    finish(session, answer, f"{user} is {role_name} {where} now")


@role.command("unbind")
@click.argument("user")
@click.argument("role_name", metavar="ROLE", type=click.Choice(ROLES))
@click.option("--project", "-p", help="Default: the role that holds everywhere.")
@output_option
@pass_session
def unbind(session: Session, user: str, role_name: str, project: str | None) -> None:
    """Take a role away from USER."""
    bindings = session.client.pages("/role-bindings", {"user": user})
    found = next((b for b in bindings if _is(b, user, role_name, project)), None)
    if found is None:
        where = f"in project {project}" if project else "everywhere"
        raise NotFound(
            f"{user} does not have the role {role_name} {where}",
            hint="'virtmgr role list' shows who has which",
        )
    answer = session.client.delete(f"/role-bindings/{segment(found['id'])}")
    finish(session, answer, f"{user} is no longer {role_name}")


def _is(binding: Json, user: str, role_name: str, project: str | None) -> bool:
    where = binding["project"]
    in_place = where is None if project is None else where and project in where.values()
    return binding["role"] == role_name and user in binding["user"].values() and bool(in_place)
