"""Keeps two tables in step with images: who has which name or alias, and who needs which blob."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, event, insert
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import get_history

from virtmgr.domain.errors import NameTaken
from virtmgr.domain.image import Image
from virtmgr.store import tables
from virtmgr.store.errors import taken


def keep_index() -> None:
    """Hook into the flush of images. Once per process."""
    event.listen(Image, "after_insert", _inserted)
    event.listen(Image, "after_update", _updated)


def _inserted(_mapper: Mapper[Any], connection: Connection, image: Image) -> None:
    _index_names(connection, image)
    _index_blobs(connection, image)


def _updated(_mapper: Mapper[Any], connection: Connection, image: Image) -> None:
    if get_history(image, "name").has_changes() or get_history(image, "aliases").has_changes():
        _forget(connection, image, "image_names")
        _index_names(connection, image)
    if get_history(image, "manifest").has_changes():
        _forget(connection, image, "image_blobs")
        _index_blobs(connection, image)


def _forget(connection: Connection, image: Image, table_name: str) -> None:
    table = tables.metadata.tables[table_name]
    connection.execute(delete(table).where(table.c.image_id == image.id))


def _index_names(connection: Connection, image: Image) -> None:
    for name in dict.fromkeys((image.name, *image.aliases)):
        try:
            connection.execute(insert(tables.image_names).values(name=name, image_id=image.id))
        except NameTaken as error:
            field = "name" if name == image.name else "aliases"
            raise taken(tables.images, field, name) from error


def _index_blobs(connection: Connection, image: Image) -> None:
    if image.manifest is None:
        return
    digests = sorted({blob.digest for blob in image.manifest.blobs()})
    rows = [{"image_id": image.id, "digest": digest} for digest in digests]
    if rows:
        connection.execute(insert(tables.image_blobs), rows)
