"""Requests from bytes to values: strict JSON, query parameters, preconditions."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any, Final, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import UnsupportedMediaType

from virtmgr.api.problems import from_validation
from virtmgr.domain.errors import InvalidRequest

M = TypeVar("M", bound=BaseModel)

MAX_DEPTH: Final = 64
_JSON_TYPES: Final = ("application/json", "application/merge-patch+json")
IDEMPOTENCY_KEY: Final = "^[!-~]{1,255}$"


def bad_request(message: str, hint: str | None = None) -> InvalidRequest:
    """A request that is malformed, so that no schema can be applied (400)."""
    return InvalidRequest(message, code="bad_request", hint=hint)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise bad_request(f"the body is refused: the member {twice!r} occurs twice in one object")
    return result


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise bad_request("the body is refused: a number is too large")
    return number


def _no_constant(text: str) -> NoReturn:
    raise bad_request(f"the body is not JSON: {text} is no JSON number")


def _check_content(document: Any) -> None:
    """Refuse too deep nesting, and text that a database cannot hold."""
    stack = [(document, 1)]
    while stack:
        value, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise bad_request(f"the body is refused: it nests deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            stack += [(key, depth) for key in value]
            stack += [(member, depth + 1) for member in value.values()]
        elif isinstance(value, list):
            stack += [(member, depth + 1) for member in value]
        elif isinstance(value, str):
            check_text(value, "the body")


def check_text(text: str, where: str) -> None:
    """Refuse NUL and lone surrogates, which are no text that can be stored.

    :raises InvalidRequest: (400) ``text`` has one.
    """
    if "\0" in text:
        raise bad_request(f"{where} is refused: it holds the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise bad_request(f"{where} is refused: it holds half a surrogate pair") from error


def parse_json(body: bytes, content_type: str | None) -> Any:
    """The JSON document in ``body`` (RFC 8259), read strictly; an empty body is ``{}``.

    :raises UnsupportedMediaType: the body is not declared to be JSON.
    :raises InvalidRequest: (400) it is not UTF-8, not JSON, has a member twice, or nests too deep.
    """
    if not body:
        return {}
    if (content_type or "").partition(";")[0].strip().lower() not in _JSON_TYPES:
        raise UnsupportedMediaType("the body must be JSON: send Content-Type: application/json")
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_float=_float,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError as error:
        raise bad_request("the body is not UTF-8") from error
    except RecursionError as error:
        raise bad_request(
            f"the body is refused: it nests deeper than {MAX_DEPTH} levels"
        ) from error
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    _check_content(document)
    return document


def parse_body(model: type[M], document: Any) -> M:
    """``document`` as a value of ``model``; a number is no text, and neither is a truth value.

    :raises InvalidFields: it breaks the schema; every offending field is named.
    """
    try:
        return model.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise from_validation(error) from error


def parse_patch(document: Any) -> dict[str, Any]:
    """A merge patch for a resource, which is a JSON object.

    :raises InvalidRequest: it is not an object.
    """
    if not isinstance(document, dict):
        raise InvalidRequest("a merge patch for a resource is a JSON object")
    return document


@cache
def _repeatable(model: type[BaseModel]) -> frozenset[str]:
    """Names of the parameters of ``model`` that may be given more than once."""

    def is_list(annotation: Any) -> bool:
        origin = get_origin(annotation)
        return origin in (list, tuple) or any(is_list(part) for part in get_args(annotation))

    return frozenset(
        field.alias or name
        for name, field in model.model_fields.items()
        if is_list(field.annotation)
    )


def parse_query(model: type[M], args: MultiDict[str, str]) -> M:
    """Query parameters as a value of ``model``; unknown and repeated ones are refused.

    :raises InvalidFields: they break the schema.
    """
    lists = _repeatable(model)
    given: dict[str, Any] = {}
    for name, values in args.lists():
        for value in (name, *values):
            check_text(value, "the query")
        if name in lists:
            given[name] = values
        elif len(values) > 1:
            raise InvalidRequest(f"the query parameter {name!r} is given twice", field=name)
        else:
            given[name] = values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise from_validation(error) from error


def parse_if_match(header: str | None) -> frozenset[int] | None:
    """The versions that ``If-Match`` allows (RFC 9110, section 13.1.1); None: any.

    Tags that are weak or not virtmgr's match no version.
    """
    if header is None or header.strip() == "*":
        return None
    tags = [tag.strip() for tag in header.split(",")]
    matches = [re.fullmatch(r'"(\d{1,18})"', tag) for tag in tags]
    return frozenset(int(match[1]) for match in matches if match is not None)


def parse_idempotency_key(key: str | None) -> str | None:
    """The value of an ``Idempotency-Key`` header, checked.

    :raises InvalidRequest: it is not 1 to 255 printable ASCII characters.
    """
    if key is not None and re.fullmatch(IDEMPOTENCY_KEY, key) is None:
        raise bad_request("Idempotency-Key has 1 to 255 printable ASCII characters without spaces")
    return key
