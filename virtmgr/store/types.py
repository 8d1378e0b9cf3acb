"""Column types: what Python holds on one side, what SQLite and PostgreSQL store on the other.

The engine of ``store/engine.py`` hands JSON through undecoded (``json_deserializer``), so that the
types here parse it once, straight into what the entity wants.
"""

# ruff: noqa: ARG002 (the signatures are SQLAlchemy's)

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import from_json, to_json
from sqlalchemy import JSON, BigInteger, Boolean, DateTime, Dialect, Integer, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.types import PGUuid
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.types import TypeDecorator, TypeEngine

Flag = Boolean
Count = BigInteger
Sequence = BigInteger().with_variant(Integer(), "sqlite")


class _TextualUuid(PGUuid[str]):
    """A uuid of engines that read it as text (``store/postgresql.py``): there is nothing to do."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        return None


def identifier() -> TypeEngine[str]:
    """An id: PostgreSQL's uuid, canonical text on SQLite, where both sort by creation time.

    (``Uuid(as_uuid=False)`` alone would store 32 digits on SQLite, and parse each one it reads.)
    """
    return String(36).with_variant(_TextualUuid(as_uuid=False), "postgresql")


def text(length: int) -> TypeEngine[str]:
    """Text that sorts by code point on both databases, whatever the locale of the server."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, always with zone UTC in Python; naive datetimes are refused."""

    impl = DateTime
    cache_ok = True

    @property
    def python_type(self) -> type[Any]:
        return datetime

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"store the time {value}: it has no zone; use datetime.now(UTC)")
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Enumerated(TypeDecorator[StrEnum]):
    """A StrEnum as its text; the table holds the check constraint (``tables.one_of``)."""

    impl = String
    cache_ok = True

    @property
    def python_type(self) -> type[Any]:
        return str

    def __init__(self, values: type[StrEnum]) -> None:
        super().__init__(16)
        self.values = values
        self._members: dict[str, StrEnum] = {member.value: member for member in values}

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(self.values(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self._members[value]


class Thousandths(TypeDecorator[float]):
    """A quantity such as vCPUs, exact to 1/1000: stored as an integer, so sums never drift."""

    impl = BigInteger
    cache_ok = True

    @property
    def python_type(self) -> type[Any]:
        return float

    def process_bind_param(self, value: float | None, dialect: Dialect) -> int | None:
        return None if value is None else round(value * 1000)

    def process_result_value(self, value: int | None, dialect: Dialect) -> float | None:
        return None if value is None else value / 1000


def json_text(value: Any) -> str:
    """JSON by pydantic, which knows models and datetimes."""
    return to_json(value).decode()


class Json(TypeDecorator[Any]):
    """JSONB on PostgreSQL, JSON text on SQLite; None is SQL's NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        json = JSONB if dialect.name == "postgresql" else JSON
        return dialect.type_descriptor(json(none_as_null=True))


class Document(Json):
    """Any JSON value, as dicts, lists and scalars."""

    cache_ok = True

    def process_result_value(self, value: str | bytes | None, dialect: Dialect) -> Any:
        return None if value is None else from_json(value)


class Tracked(Document):
    """What ``document`` gives columns."""

    cache_ok = True


def document() -> TypeEngine[Any]:
    """A JSON object whose top-level changes in place are noticed; deeper ones: assign anew."""
    return MutableDict.as_mutable(Tracked())


_PARSED: Final = 512  # texts of a kind whose values are kept; each takes some 6 KB


class Model(Json):
    """A frozen pydantic value as JSON.

    Equal texts give one shared value: a page of workloads repeats few specs, and validating one
    costs more than all the rest of reading its row. Values are frozen; treat their dicts so too.
    """

    cache_ok = True

    def __init__(self, model: type[BaseModel]) -> None:
        super().__init__()
        self.model = model
        self._parse = lru_cache(maxsize=_PARSED)(model.model_validate_json)

    def process_result_value(self, value: str | bytes | None, dialect: Dialect) -> Any:
        return None if value is None else self._parse(value)
