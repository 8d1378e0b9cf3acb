"""Who asks: bearer tokens, log-in with a password, and the first administrator."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from virtmgr.domain.access import Principal
from virtmgr.domain.errors import TooManyRequests, Unauthenticated
from virtmgr.domain.host import Cluster
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import Network
from virtmgr.domain.operation import Event
from virtmgr.domain.project import (
    NOWHERE,
    Origin,
    Project,
    Quota,
    Role,
    RoleBinding,
    Token,
    User,
)
from virtmgr.ports.clock import Clock
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.container import Services
from virtmgr.services.passwords import verify_password

FIRST_USER: Final = "admin"
_TOKEN_PREFIX: Final = "vmt_"
_USED_EVERY: Final = timedelta(minutes=1)
_LOGIN_LIFETIME: Final = timedelta(hours=12)
_FREE_FAILURES: Final = 5
_FIRST_LOCK: Final = timedelta(seconds=30)
_LONGEST_LOCK: Final = timedelta(hours=1)
_DEFAULT_IPV4: Final = "10.83.0.0/16"


def new_secret(prefix: str = _TOKEN_PREFIX) -> tuple[str, str]:
    """A secret of 256 random bits, and the hash to keep of it."""
    secret = prefix + secrets.token_urlsafe(32)
    return secret, hash_secret(secret)


def hash_secret(secret: str) -> str:
    """SHA-256 in hexadecimal: secrets of full entropy need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def bearer_token(header: str | None) -> str:
    """The token in an ``Authorization`` header (RFC 6750, section 2.1).

    :raises Unauthenticated: there is none.
    """
    scheme, _, secret = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated(
            "the request has no token",
            hint="send 'Authorization: Bearer TOKEN'; make a token with 'virtmgr login'",
        )
    return secret.strip()


@dataclass(frozen=True)
class Recognised:
    """Whose token it is, until when that is good, and whether its use is still to be noted."""

    principal: Principal
    token_id: str
    good_until: datetime
    used_at: datetime
    to_be_noted: bool


def authenticate(services: Services, secret: str, *, background: bool = False) -> Principal:
    """Whose token it is.

    :raises Unauthenticated: it is unknown or has expired, or its user is disabled.
    """
    with services.units(read_only=True) as uow:
        known = recognise(uow, secret, services.clock.now(), background=background)
    note_use(services, known)
    return known.principal


def recognise(
    uow: UnitOfWork, secret: str, now: datetime, *, background: bool = False
) -> Recognised:
    """Whose token it is; ``note_use`` is to follow.

    :param background: a program asks by itself: that is no use that keeps the token from idling.
    :raises Unauthenticated: it is unknown or has expired, or its user is disabled.
    """
    shown = uow.tokens.shown(hash_secret(secret))
    if shown is None or shown[1].disabled:
        raise Unauthenticated("the token is not known", hint="log in again: 'virtmgr login'")
    token, user, bindings = shown
    if token.expires_at is not None and token.expires_at <= now:
        raise Unauthenticated(
            f"the token expired at {token.expires_at:%Y-%m-%d %H:%M} UTC",
            code="token_expired",
            hint="log in again: 'virtmgr login'",
        )
    if token.idle_at is not None and token.idle_at <= now:
        raise Unauthenticated(
            f"the session ended at {token.idle_at:%Y-%m-%d %H:%M} UTC, for it was not used",
            code="session_idle",
            hint="log in again",
        )
    who = _principal(user, token, bindings)
    stale = token.last_used_at is None or now - token.last_used_at >= _USED_EVERY
    if background:
        until = min(filter(None, (now + _USED_EVERY, token.expires_at, token.idle_at)))
        return Recognised(who, token.id, until, now, to_be_noted=False)
    noted = now if stale or token.last_used_at is None else token.last_used_at
    until = min(filter(None, (noted + _USED_EVERY, token.expires_at)))
    return Recognised(who, token.id, until, now, to_be_noted=stale)


def _principal(user: User, token: Token, bindings: Sequence[RoleBinding]) -> Principal:
    return Principal(
        user_id=user.id,
        name=user.name,
        bindings=tuple((b.role, b.project_id) for b in bindings),
        token_role=token.role,
        token_project_id=token.project_id,
    )


def note_use(services: Services, known: Recognised) -> None:
    """Remember when the token was used, to the minute. Call it outside of any unit of work."""
    if not known.to_be_noted:
        return
    with services.units() as uow:
        token = uow.tokens.lock(known.token_id)
        if token is not None:
            token.last_used_at = known.used_at
            uow.commit()


@dataclass(frozen=True)
class LoggedIn:
    """A new token, shown once."""

    secret: str
    token_id: str
    user_id: str
    user_name: str
    expires_at: datetime


def log_in(
    services: Services,
    name: str,
    password: str,
    *,
    idle_seconds: int | None = None,
    origin: Origin = NOWHERE,
) -> LoggedIn:
    """Make a token for a user who knows the password.

    After five failures in a row each further one locks the user for twice as long as before. The
    hash is checked outside of any transaction; unknown users take as long as known ones.

    :raises Unauthenticated: unknown user, wrong password or disabled user; which one is not said.
    :raises TooManyRequests: the user is locked.
    """
    now = services.clock.now()
    with services.units(read_only=True) as uow:
        user = uow.users.find(name)
        user_id, hash = (user.id, user.password_hash) if user else (None, None)
        locked_until = user.locked_until if user else None
    if locked_until is not None and locked_until > now:
        raise _locked(locked_until, now)
    right = verify_password(hash, password)
    with services.units() as uow:
        user = uow.users.lock(user_id) if user_id else None
        if user is None or not right or user.disabled:
            if user is not None:
                _count_failure(uow, user, now)
                uow.after_commit(services.committed.notify)
                uow.commit()
            raise Unauthenticated(
                "the name or the password is wrong",
                code="login_failed",
                hint="try again; after several failures in a row the user is locked for a while",
            )
        if user.locked_until is not None and user.locked_until > now:
            raise _locked(user.locked_until, now)  # by others who tried meanwhile
        user.failed_logins, user.locked_until = 0, None
        secret, secret_hash = new_secret()
        token = Token(
            id=new_id(),
            user_id=user.id,
            name="login",
            secret_hash=secret_hash,
            expires_at=now + _LOGIN_LIFETIME,
            idle_seconds=idle_seconds,
            address=origin.address,
            user_agent=origin.user_agent,
            created_at=now,
        )
        uow.tokens.add(token)
        _log(uow, "user.logged_in", user, f"{user.name} logged in", now)
        uow.after_commit(services.committed.notify)
        uow.commit()
        return LoggedIn(secret, token.id, user.id, user.name, now + _LOGIN_LIFETIME)


def _locked(until: datetime, now: datetime) -> TooManyRequests:
    seconds = max(1, round((until - now).total_seconds()))
    return TooManyRequests(
        f"too many log-ins failed: the next is possible in {seconds} s",
        code="login_locked",
        hint="wait, or let an administrator set a new password",
        detail={"retry_after": seconds},
    )


def _count_failure(uow: UnitOfWork, user: User, now: datetime) -> None:
    user.failed_logins += 1
    beyond = user.failed_logins - _FREE_FAILURES
    if beyond >= 0:
        user.locked_until = now + min(_FIRST_LOCK * 2 ** min(beyond, 20), _LONGEST_LOCK)
    _log(uow, "user.login_failed", user, f"a log-in as {user.name} failed", now)


def _log(uow: UnitOfWork, type: str, user: User, message: str, now: datetime) -> None:
    uow.events.append(
        Event(
            at=now,
            type=type,
            target_type="user",
            target_id=user.id,
            target_name=user.name,
            project_id=None,
            user_id=user.id,
            message=message,
        )
    )


def initialise(uow: UnitOfWork, clock: Clock) -> str | None:
    """Make the first administrator, and the project, cluster and network ``default``.

    The caller commits.

    :returns: the administrator's token; None if virtmgr was initialised before.
    """
    if uow.settings.get("initialised_at") is not None:
        return None
    now = clock.now()
    admin = User(id=new_id(), name=FIRST_USER, display_name="Administrator", created_at=now)
    uow.users.add(admin)
    uow.role_bindings.add(
        RoleBinding(id=new_id(), user_id=admin.id, role=Role.ADMIN, project_id=None, created_at=now)
    )
    secret, secret_hash = new_secret()
    uow.tokens.add(
        Token(id=new_id(), user_id=admin.id, name="init", secret_hash=secret_hash, created_at=now)
    )
    project = Project(id=new_id(), name="default", created_at=now)
    uow.projects.add(project)
    uow.quotas.add(Quota(project_id=project.id))
    uow.clusters.add(Cluster(id=new_id(), name="default", created_at=now))
    uow.networks.add(
        Network(
            id=new_id(),
            project_id=None,
            name="default",
            ipv4=_DEFAULT_IPV4,
            ipv6=_unique_local_network(),
            created_at=now,
        )
    )
    uow.settings.set("initialised_at", now.isoformat())
    _log(uow, "user.created", admin, "virtmgr was initialised", now)
    return secret


def _unique_local_network() -> str:
    """A /64 with a random global id, so that installations can meet (RFC 4193, section 3.2)."""
    digits = "fd" + secrets.token_hex(5)
    return f"{digits[:4]}:{digits[4:8]}:{digits[8:12]}::/64"
