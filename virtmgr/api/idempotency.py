"""``Idempotency-Key``: the first answer is given again, not the effect repeated.

The key's row is inserted in the transaction of the effect and before it, so that of two requests
at the same time one waits for the other at the unique key and then finds its answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from virtmgr.domain.errors import Conflict
from virtmgr.domain.operation import IdempotencyKey
from virtmgr.services.container import Services
from virtmgr.services.context import Context

LIFETIME: Final = timedelta(hours=24)


@dataclass(frozen=True)
class Remembered:
    """An answer that was given before."""

    status: int
    body: str
    location: str | None
    version: int | None


class Expired(Exception):
    """An old answer is still there."""


def request_hash(method: str, target: str, body: bytes) -> str:
    """What makes two requests the same: method, path with query, and body."""
    digest = hashlib.sha256()
    for part in (method.encode(), target.encode(), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def recall(context: Context, key: str, hash: str) -> Remembered | None:
    """The answer given under ``key``; None reserves the key for this request.

    :raises Conflict: (idempotency_mismatch) the key was used for another request.
    :raises NameTaken: another request with the key was faster; ask again in a new transaction.
    :raises Expired: the key's answer is too old; ``forget`` it, then ask again.
    """
    store = context.uow.idempotency
    found = store.get(context.principal.user_id, key)
    if found is not None:
        if found.created_at <= context.now - LIFETIME:
            raise Expired
        if found.request_hash != hash:
            raise Conflict(
                "the Idempotency-Key was used for another request before",
                code="idempotency_mismatch",
                hint="use a new key for each new request",
            )
        return _remembered(found)
    store.add(
        IdempotencyKey(
            user_id=context.principal.user_id,
            key=key,
            request_hash=hash,
            status=0,
            body="",
            created_at=context.now,
        )
    )
    context.uow.flush()
    return None


def forget(services: Services) -> None:
    """Remove the answers that are too old to be given again."""
    with services.units() as uow:
        uow.idempotency.purge(services.clock.now() - LIFETIME)
        uow.commit()


def remember(context: Context, key: str, answer: Remembered) -> None:
    """Keep the answer of the request that reserved ``key``."""
    entry = context.uow.idempotency.get(context.principal.user_id, key)
    if entry is None:
        raise AssertionError("the key was reserved in this transaction")
    head = {"location": answer.location, "version": answer.version}
    entry.status = answer.status
    entry.body = json.dumps(head) + "\n" + answer.body


def _remembered(entry: IdempotencyKey) -> Remembered:
    head, _, body = entry.body.partition("\n")
    fields: dict[str, Any] = json.loads(head)
    return Remembered(status=entry.status, body=body, **fields)
