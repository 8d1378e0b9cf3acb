"""Small value types shared by every schema: names, byte counts, labels, addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from virtmgr.domain.ids import is_id

_SUFFIXES = {
    "": 1,
    "B": 1,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTP", start=1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGTP", start=1)},
}
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_LARGEST = 2**60


class Value(BaseModel):
    """Base of all frozen schemas: unknown fields are refused, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Value):
    """Base of what control plane and agents say to each other, and of what agents keep on disk.

    Either side may be one minor version older than the other, and an agent may find what a newer
    one has kept. So what is read has its unknown fields ignored, at every depth: also in schemas
    that a person's request is held against strictly (``WorkloadSpec``), since who mistypes a field
    is to hear of it, and who is newer has not mistyped it. What is made here stays strict.

    Nobody may send what is harmful to ignore to somebody who has not shown that they know it
    (docs/architecture.md, "Versions").
    """

    @classmethod
    def read(cls, content: str | bytes) -> Self:
        """What was said, as JSON.

        :raises ValidationError: it is not this message.
        """
        return cls.model_validate_json(content, extra="ignore")

    @classmethod
    def read_from(cls, document: Any) -> Self:
        """The same from JSON that is decoded already.

        :raises ValidationError: it is not this message.
        """
        return cls.model_validate(document, extra="ignore")


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Where the first thing is that is wrong with a message (empty: its top), and what is wrong;
    nothing of what the message says."""
    first = error.errors(include_input=False, include_url=False)[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]


def known_fields(kind: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """What of a document the dataclass ``kind`` has a field for; it may be a newer release's."""
    return {one.name: document[one.name] for one in fields(kind) if one.name in document}


def parse_bytes(text: str | int) -> int:
    """The number of bytes that ``text`` names: ``"2GiB"``, ``"500MB"``, ``4096``.

    :raises ValueError: for anything else, a negative number or one above 1 EiB.
    """
    if isinstance(text, bool) or not isinstance(text, (int, str)):
        raise ValueError("give a number of bytes, or text such as 512MiB or 2GiB")
    if isinstance(text, int):
        count = text
    else:
        found = _BYTES.fullmatch(text)
        if found is None or found[2] not in _SUFFIXES:
            raise ValueError(f"{text!r} is no size; write a number and B, KiB, MiB, GiB or TiB")
        count = int(float(found[1]) * _SUFFIXES[found[2]])
    if not 0 <= count <= _LARGEST:
        raise ValueError("a size lies between 0 and 1 EiB")
    return count


def format_bytes(count: int) -> str:
    """``count`` bytes in the largest binary unit that keeps it at least 1: ``1.5GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.4g}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def check_name(name: str) -> str:
    """``name`` itself if it is a DNS label (RFC 1123), so that it can be a host name.

    :raises ValueError: otherwise, or if it looks like an id.
    """
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) is None:
        raise ValueError(
            "a name has 1 to 63 of a-z, 0-9 and '-', and starts and ends with a letter or digit"
        )
    if is_id(name):
        raise ValueError("a name must not look like an id")
    return name


def check_image_name(name: str) -> str:
    """``name`` if it can name an image: ``debian``, ``nginx:1.27``, ``library/redis:7``.

    :raises ValueError: otherwise, or if it looks like an id.
    """
    if re.fullmatch(r"[a-z0-9]([a-z0-9._/:-]{0,126}[a-z0-9])?", name) is None:
        raise ValueError("an image name has 1 to 128 of a-z, 0-9 and . _ / : -")
    if is_id(name):
        raise ValueError("a name must not look like an id")
    return name


def _check_label_key(key: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?", key) is None:
        raise ValueError("a label key has 1 to 63 of A-Z, a-z, 0-9 and . _ / -")
    return key


def _check_label_value(text: str) -> str:
    if len(text) > 63 or not text.isprintable():
        raise ValueError("a label value has at most 63 printable characters")
    return text


Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": _LARGEST},
                {"type": "string", "pattern": r"^\d+(\.\d+)?(B|[KMGTP]i?B)$"},
            ],
            "description": "Bytes, as a number or as text with a unit: 512MiB, 2GiB.",
        },
        mode="validation",
    ),
]
Name = Annotated[
    str,
    AfterValidator(check_name),
    Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
]
ImageName = Annotated[str, AfterValidator(check_image_name), Field(min_length=1, max_length=128)]
Reference = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-z0-9][a-z0-9._/:-]*$")]
"""A resource named by id or by name."""
Labels = Annotated[
    dict[
        Annotated[str, AfterValidator(_check_label_key)],
        Annotated[str, AfterValidator(_check_label_value)],
    ],
    Field(max_length=64),
]
