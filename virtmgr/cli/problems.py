"""From the API's problem+json (RFC 9457) to errors, and from errors to exit codes and text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from virtmgr.domain import errors
from virtmgr.domain.errors import VirtmgrError


class Exit(IntEnum):
    """The exit codes that scripts may rely on (docs/cli.md)."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    DENIED = 5
    UNREACHABLE = 6
    TIMEOUT = 7
    INTERRUPTED = 130


TIMEOUT = "timeout"
UNREACHABLE = "server_unreachable"

_BY_STATUS: dict[int, type[VirtmgrError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.PreconditionFailed,
    413: errors.InvalidRequest,
    415: errors.InvalidRequest,
    422: errors.InvalidRequest,
    428: errors.PreconditionFailed,
    429: errors.TooManyRequests,
    502: errors.HostError,
    503: errors.Unavailable,
    504: errors.Unavailable,
}
_EXITS: tuple[tuple[type[VirtmgrError], Exit], ...] = (
    (errors.InvalidRequest, Exit.USAGE),
    (errors.NotFound, Exit.NOT_FOUND),
    (errors.Conflict, Exit.REFUSED),
    (errors.PreconditionFailed, Exit.REFUSED),
    (errors.Unauthenticated, Exit.DENIED),
    (errors.Forbidden, Exit.DENIED),
    (errors.Unavailable, Exit.UNREACHABLE),
)
_SHOWN_APART = {"type", "title", "status", "detail", "code", "field", "hint", "instance"}


def from_problem(problem: Mapping[str, Any], status: int | None = None) -> VirtmgrError:
    """The error that a problem object tells of.

    ``code`` decides its class, and for codes that this version does not know, the HTTP status.
    """
    code = str(problem.get("code") or "") or None
    status = status or int(problem.get("status") or 500)
    subclasses = _subclasses(VirtmgrError)
    known = {
        kind.default_code: kind for kind in subclasses if kind.__module__ == VirtmgrError.__module__
    }
    kind = known.get(code or "") or _BY_STATUS.get(status, VirtmgrError)
    text = problem.get("detail") or problem.get("message") or problem.get("title")
    return kind(
        str(text or f"the server answered with status {status}"),
        code=code,
        hint=problem.get("hint"),
        field=problem.get("field"),
        detail={key: value for key, value in problem.items() if key not in _SHOWN_APART},
    )


def exit_code(error: VirtmgrError) -> Exit:
    """The exit code for an error."""
    if error.code == TIMEOUT:
        return Exit.TIMEOUT
    if error.code == UNREACHABLE:
        return Exit.UNREACHABLE
    return next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.FAILURE)


def as_text(error: VirtmgrError) -> str:
    """The lines for people: what went wrong, each offending field, and what to do next."""
    shown_field = error.field and error.field not in error.message
    lines = [f"error: {error.field}: {error.message}" if shown_field else f"error: {error.message}"]
    for each in _field_errors(error):
        lines.append(f"  {each}")
    lines += explanation_lines(error.detail.get("explanation"))
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return "\n".join(lines)


def as_json(error: VirtmgrError) -> str:
    """One line of JSON for scripts."""
    shown = {
        "code": error.code,
        "detail": error.message,
        "field": error.field,
        "hint": error.hint,
        "exit_code": int(exit_code(error)),
        **error.detail,
    }
    return json.dumps({"error": {k: v for k, v in shown.items() if v is not None}})


def explanation_of(value: object) -> Mapping[str, Any] | None:
    """The placement's explanation in a problem or an answer, however deep it is wrapped."""
    while isinstance(value, Mapping):
        if "verdicts" in value:
            return value
        value = value.get("explanation")
    return None


def explanation_lines(value: object) -> list[str]:
    """A placement's explanation, a line for each host that was turned down."""
    explanation = explanation_of(value)
    if explanation is None:
        return []
    lines = [
        f"  {verdict['host']['name']}: {'; '.join(reason_texts(verdict))}"
        for verdict in explanation["verdicts"]
        if not verdict["fits"]
    ]
    if not explanation.get("complete", True):
        lines.append(f"  … of {explanation['hosts']} hosts in all")
    return lines


def reason_texts(verdict: Mapping[str, Any]) -> list[str]:
    """Why a host was turned down."""
    return [str(reason["message"]) for reason in verdict.get("reasons", ())]


def _field_errors(error: VirtmgrError) -> list[str]:
    found = error.detail.get("errors")
    if not isinstance(found, list) or len(found) < 2:
        return []
    return [
        f"{each.get('field') or 'request'}: {each.get('message') or each.get('detail')}"
        for each in found
        if isinstance(each, Mapping)
    ]


def _subclasses(kind: type[VirtmgrError]) -> list[type[VirtmgrError]]:
    return [each for sub in kind.__subclasses__() for each in (sub, *_subclasses(sub))]
