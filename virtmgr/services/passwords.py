"""Passwords: argon2id (RFC 9106) with OWASP's parameters, off the event loop under gevent."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, TypeVar

import gevent
import gevent.monkey
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

T = TypeVar("T")

_HASHER: Final = PasswordHasher(
    time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16, type=Type.ID
)


def _off_loop(work: Callable[[], T]) -> T:
    """Hashing takes tens of milliseconds in C, which would stop every greenlet of the process."""
    if not gevent.monkey.is_module_patched("socket"):
        return work()
    result: T = gevent.get_hub().threadpool.apply(work)
    return result


def hash_password(password: str) -> str:
    """The hash to keep of ``password``."""
    return _off_loop(lambda: _HASHER.hash(password))


def verify_password(hash: str | None, password: str) -> bool:
    """Whether ``password`` is the one; takes as long where there is no hash to compare with."""

    def verify() -> bool:
        try:
            return _HASHER.verify(hash or _decoy(), password) and hash is not None
        except (VerificationError, InvalidHashError):
            return False

    return _off_loop(verify)


@cache
def _decoy() -> str:
    return _HASHER.hash("no user has this password")
