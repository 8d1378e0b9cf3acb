"""Images, with their names, aliases and blobs (see ``store/image_index.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from sqlalchemy import Select, bindparam, exists, select

from virtmgr.domain.ids import is_id
from virtmgr.domain.image import Image
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlNamedRepository

_images = tables.images.c


class SqlImages(SqlNamedRepository[Image]):
    entity = Image
    table = tables.images
    listing = Listing(
        tie=_images.id,
        filters={
            "name": _images.name,
            "id": _images.id,
            "type": _images.type,
            "state": _images.state,
            "digest": _images.digest,
        },
        sorts={
            "name": _images.name,
            "created_at": _images.created_at,
            "size": _images.size,
            "state": _images.state,
        },
        text=_images.name,
        labels=_images.labels,
    )

    def find(self, reference: str) -> Image | None:
        if is_id(reference):
            return self.get(reference)
        found = self._asked(_called(), reference=reference)
        return found[0] if found else None

    def set_aliases(self, image: Image, aliases: Iterable[str]) -> None:
        image.aliases = list(dict.fromkeys(aliases))
        self._session.flush()

    def find_by_blob(self, digest: str) -> bool:
        return bool(
            self._session.scalar(select(exists().where(tables.image_blobs.c.digest == digest)))
        )

    def on_host(self, host_id: str) -> Sequence[Image]:
        there = tables.host_images.c
        at_hand = select(there.image_id).where(there.host_id == host_id)
        return self._many(_images.id.in_(at_hand), order=[_images.name])


@cache
def _called() -> Select[Image]:
    names = tables.image_names.c
    named = select(names.image_id).where(names.name == bindparam("reference"))
    return select(Image).where(_images.id.in_(named))
