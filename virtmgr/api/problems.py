"""Errors as RFC 9457 problem details (``application/problem+json``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import structlog
from flask import Flask, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException

from virtmgr.domain import errors

log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_TYPE_BASE: Final = "https://virtmgr.dev/problems/"

STATUS: Final[dict[type[errors.VirtmgrError], int]] = {
    errors.InvalidRequest: 422,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.TooManyRequests: 429,
    errors.HostError: 502,
    errors.Unavailable: 503,
    errors.VirtmgrError: 500,
}

_STATUS_OF_CODE: Final = {"bad_request": 400}
"""Malformed requests, which break the syntax and not the schema."""

_HTTP_CODES: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    411: "length_required",
    413: "content_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    417: "expectation_failed",
    431: "headers_too_large",
}

_ROUTES: Final = "see every route and its methods at /api/v1/docs"
_HINTS: Final = {
    404: _ROUTES,
    405: _ROUTES,
    408: "send it again; on a slow line in smaller pieces",
    413: "see the limits in docs/api.md; files are uploaded, not sent as JSON",
    415: "see what the route takes at /api/v1/docs",
}


_OF_TYPES: Final = re.compile(r"^(?:Input|String|List|Tuple|Dictionary|Set|Value) should\b")
"""How pydantic begins: by the type of what was given, which says nothing to people."""


class FieldError(BaseModel):
    """What is wrong with one field."""

    model_config = ConfigDict(title="FieldError")

    field: str = Field(description="The offending field, dotted: nics.0.network.")
    code: str = Field(description="What is wrong, for programs.")
    message: str = Field(description="What is wrong, for people.")


class Problem(BaseModel):
    """A refusal or failure (RFC 9457)."""

    type: str = Field(description="A URI that names the kind of problem.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was attempted, on what, and why it failed.")
    code: str = Field(description="Stable identifier of the kind of problem.")
    field: str | None = Field(None, description="The offending field of the request.")
    hint: str | None = Field(None, description="What to do next.")
    errors: list[FieldError] | None = Field(None, description="One for each offending field.")
    explanation: Any = Field(None, description="Further facts, such as a placement's reasons.")
    request_id: str | None = Field(None, description="Find the request in the server's log.")


class InvalidFields(errors.InvalidRequest):
    """Several fields break the schema at once."""

    def __init__(self, found: list[FieldError]) -> None:
        first = found[0]
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        super().__init__(
            f"the request is not valid: {first.field or 'body'}: {first.message}{others}",
            field=first.field or None,
            hint="'virtmgr COMMAND --help' and 'virtmgr explain workload' say what is possible; "
            "the API's schema is at /api/v1/openapi.json",
        )
        self.errors = found


def from_validation(error: ValidationError, prefix: str = "") -> InvalidFields:
    """Pydantic's findings, without the input, which may hold secrets."""
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in item["loc"])
        message = _OF_TYPES.sub("it should", item["msg"].removeprefix("Value error, "))
        if not path and ": " in message:  # a validator of the whole names its field itself
            named, _, rest = message.partition(": ")
            if " " not in named:
                path, message = named, rest
        if item["type"] == "extra_forbidden":
            message = "is not known here"
        found.append(FieldError(field=prefix + path, code=item["type"], message=message))
    return InvalidFields(found)


@contextmanager
def refusing_invalid() -> Iterator[None]:
    """What breaks a schema inside the block is the request's fault.

    :raises InvalidRequest: with the fields named.
    """
    try:
        yield
    except ValidationError as error:
        raise from_validation(error) from error


def status_of(error: errors.VirtmgrError) -> int:
    """The HTTP status that tells of ``error``."""
    if error.code in _STATUS_OF_CODE:
        return _STATUS_OF_CODE[error.code]
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return 500


def problem_document(error: errors.VirtmgrError) -> dict[str, Any]:
    """``error`` as a problem object, also for ``Operation.error`` and streams."""
    status = status_of(error)
    problem = Problem(
        type=_TYPE_BASE + error.code,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        field=error.field,
        hint=error.hint,
        errors=error.errors if isinstance(error, InvalidFields) else None,
        explanation=error.detail or None,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
    )
    return problem.model_dump(mode="json", exclude_none=True)


def respond(error: errors.VirtmgrError) -> Response:
    """The response that tells of ``error``."""
    document = problem_document(error)
    response = Response(json.dumps(document), status=document["status"], mimetype=MEDIA_TYPE)
    if isinstance(error, errors.Unauthenticated):
        response.headers["WWW-Authenticate"] = 'Bearer realm="virtmgr"'
    if isinstance(error, errors.TooManyRequests | errors.Unavailable):
        response.headers["Retry-After"] = str(error.detail.get("retry_after", 5))
    return response


def http_problem(status: HTTPStatus, detail: str) -> str:
    """The document of a refusal that comes from HTTP itself."""
    code = _HTTP_CODES.get(status, "http_error")
    return Problem(
        type=_TYPE_BASE + code,
        title=status.phrase,
        status=status,
        detail=detail,
        code=code,
        hint=_HINTS.get(status),
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
    ).model_dump_json(exclude_none=True)


def _respond_to_http_error(error: HTTPException) -> Response:
    if error.response is not None:
        return error.response  # type: ignore[return-value]
    status = HTTPStatus(error.code or 500)
    document = http_problem(status, error.description or status.phrase)
    response = Response(document, status=status, mimetype=MEDIA_TYPE)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def respond_to_defect(error: Exception) -> Response:
    """The response that tells of a defect of our own; what it is goes to the log."""
    log.error("request_failed", exc_info=error)
    return respond(
        errors.VirtmgrError(
            "virtmgr failed to carry out the request because of a defect of its own",
            hint="find the request_id in the server's log and report it",
        )
    )


def register(app: Flask) -> None:
    """Answer every error of ``app`` with a problem document."""
    app.register_error_handler(errors.VirtmgrError, respond)
    app.register_error_handler(HTTPException, _respond_to_http_error)
    app.register_error_handler(Exception, respond_to_defect)
