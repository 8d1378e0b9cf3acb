"""The private CA as the API shows it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.domain.authority import Phase
from virtmgr.services.authorities import Shown


class AuthorityView(View):
    """A CA that is trusted."""

    fingerprint: str = Field(description="SHA-256 of its certificate, in hexadecimal.")
    issues: bool = Field(description="Whether new certificates are its.")
    begins_at: datetime
    expires_at: datetime


class DependenceView(View):
    """A host that the change of the CA waits for."""

    host: str
    reason: str


class CaView(View):
    """The private CA, and where its change is."""

    phase: Phase = Field(
        description="steady: there is one. spreading: the next one is being made known, the one "
        "before issues. replacing: the next one issues, the one before is still trusted."
    )
    since: datetime | None = Field(description="When the change got where it is.")
    authorities: list[AuthorityView] = Field(description="Those that are trusted.")
    certificate: str = Field(description="Their certificates, in PEM: what clients trust.")
    waits_for: list[DependenceView]


def present(shown: Shown) -> CaView:
    """The CA as the API shows it."""
    issuing = shown.authorities.issuing
    return CaView(
        phase=shown.authorities.phase,
        since=shown.since,
        authorities=[
            AuthorityView(
                fingerprint=each.fingerprint,
                issues=each.fingerprint == issuing,
                begins_at=each.life.begins,
                expires_at=each.life.ends,
            )
            for each in shown.certificates
        ],
        certificate=shown.pem,
        waits_for=[DependenceView(host=each.name, reason=each.reason) for each in shown.waits_for],
    )
