"""Projects, quotas, and who may do what in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final


@dataclass(kw_only=True)
class Project:
    """A tenant: owns workloads, volumes and networks."""

    id: str
    name: str
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    created_at: datetime
    version: int = 1


@dataclass(kw_only=True)
class Quota:
    """A project's limits and what it uses of them; ``None`` is no limit.

    ``used_*`` change only by ``QuotaRepository.charge``, in the transaction that takes the claim.
    """

    project_id: str
    limit_workloads: int | None = None
    limit_vcpus: float | None = None
    limit_memory: int | None = None  # bytes
    limit_disk: int | None = None  # bytes, root disks and volumes together
    limit_volumes: int | None = None
    limit_addresses: int | None = None
    used_workloads: int = 0
    used_vcpus: float = 0.0
    used_memory: int = 0
    used_disk: int = 0
    used_volumes: int = 0
    used_addresses: int = 0
    version: int = 1


@dataclass(kw_only=True)
class User:
    """A person or a program that may log in."""

    id: str
    name: str
    display_name: str = ""
    password_hash: str | None = None  # argon2id; None: tokens only
    disabled: bool = False
    failed_logins: int = 0
    locked_until: datetime | None = None
    created_at: datetime
    version: int = 1


class Role(StrEnum):
    """What a principal may do, each including the ones below it."""

    ADMIN = "admin"  # everything, users and role bindings included
    OPERATOR = "operator"  # hosts, clusters, images, networks, quotas; workloads everywhere
    MEMBER = "member"  # workloads, volumes and networks of the project
    VIEWER = "viewer"  # see


@dataclass(kw_only=True)
class RoleBinding:
    """Gives ``user_id`` a role in one project, or everywhere where ``project_id`` is None."""

    id: str
    user_id: str
    role: Role
    project_id: str | None
    created_at: datetime


@dataclass(kw_only=True)
class Token:
    """A bearer token. Only the SHA-256 of its secret is kept.

    ``role`` and ``project_id``, where given, narrow what the token may do to less than its
    user's bindings allow, never to more. ``address`` and ``user_agent`` are those of the request
    that made it.
    """

    id: str
    user_id: str
    name: str
    secret_hash: str
    role: Role | None = None
    project_id: str | None = None
    expires_at: datetime | None = None
    idle_seconds: int | None = None  # it ends when it was not used for so long; None: never so
    last_used_at: datetime | None = None
    address: str | None = None
    user_agent: str | None = None
    created_at: datetime

    @property
    def idle_at(self) -> datetime | None:
        """When it ends unless it is used before; None: never for that."""
        if self.idle_seconds is None:
            return None
        return (self.last_used_at or self.created_at) + timedelta(seconds=self.idle_seconds)


@dataclass(frozen=True)
class Origin:
    """Where a request comes from, as far as it can be told; shown to people, trusted by nobody."""

    address: str | None = None
    user_agent: str | None = None


NOWHERE: Final = Origin()
