"""Routes of the private CA."""

from __future__ import annotations

from pydantic import Field

from virtmgr.api.answers import Answer
from virtmgr.api.conventions import ChangeQuery
from virtmgr.api.routing import Route, change, read
from virtmgr.api.schemas.ca import CaView, present
from virtmgr.domain.access import Action
from virtmgr.services import authorities
from virtmgr.services.context import Context


class RotateQuery(ChangeQuery):
    """Nothing but what every change takes."""


class RetireQuery(ChangeQuery):
    """How the CA of before is retired."""

    force: bool = Field(False, description="Although hosts depend on it: they are cut off.")


def show(context: Context) -> Answer[CaView]:
    """Show the private CA, and where its change is"""
    return Answer(present(authorities.show(context)))


def rotate(context: Context, query: RotateQuery) -> Answer[CaView]:
    """Make the next CA; it issues once every host that speaks trusts it"""
    return Answer(present(authorities.rotate(context, dry_run=query.dry_run)))


def retire(context: Context, query: RetireQuery) -> Answer[CaView]:
    """Let the CA of before be trusted no more"""
    return Answer(present(authorities.retire(context, force=query.force)))


ROUTES: tuple[Route, ...] = (
    read("/ca", show, Action.CA_VIEW),
    change("POST", "/ca/rotate", rotate, Action.CA_UPDATE),
    change("POST", "/ca/retire", retire, Action.CA_UPDATE),
)
