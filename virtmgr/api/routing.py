"""One route: method, path, handler, and the action that it needs; how the URL table is written.

A handler is a function ``(context, *, PATH PARAMETERS, query, body | patch)`` whose annotations
are the schema: ``query`` is a ``Query`` model, ``body`` a model, ``patch`` a ``Patch[Model]``, and
it returns ``Answer[View]`` or ``Started``. Only parameters that it names are passed. Its
docstring's first line is the route's summary. It runs in one unit of work, which ``dispatch``
commits, or rolls back on an error or a dry run.

A *raw* handler gets a ``RawRequest`` instead of a context and no unit of work: for streams,
uploads and log-in. The principal's right to the action is checked before it, too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, create_model

from virtmgr.api.answers import Answer, Started
from virtmgr.api.conventions import ChangeQuery, Query, StartQuery
from virtmgr.api.merge_patch import Patch
from virtmgr.domain.access import Action

PREFIX = "/api/v1"


class Access(Enum):
    """Who may call a route at all."""

    PUBLIC = "public"  # anybody, without a token
    OWN = "own"  # anybody with a token, on what is their own
    ROLE = "role"  # whose role allows the route's action


class Mode(Enum):
    """How a route's handler runs."""

    READ = "read"  # in a read-only unit of work
    CHANGE = "change"  # in a unit of work that is committed
    START = "start"  # the same; the handler begins asynchronous operations
    RAW = "raw"  # without one


@dataclass(frozen=True, kw_only=True)
class Route:
    """One line of the URL table. ``path`` is below ``PREFIX``, in OpenAPI's form."""

    method: str
    path: str
    handler: Callable[..., Any]
    action: Action | None
    mode: Mode
    status: int = 200
    access: Access = Access.ROLE
    takes_file: bool = False  # the body is a file, passed as ``upload``
    body_media_type: str | None = None  # RAW: what it takes, if not JSON
    query: type[Query] | None = None  # RAW: its query parameters
    headers: type[BaseModel] | None = None  # RAW: what it reads of the request's headers
    answers: dict[int, Any] = field(default_factory=dict)  # documented responses; RAW: all
    deprecated: bool = False  # kept for callers of before

    @property
    def name(self) -> str:
        """Unique; Flask's endpoint and OpenAPI's operationId."""
        words = re.sub(r"[{}]", "", self.path).strip("/").replace("-", "_").split("/")
        return "_".join([self.method.lower(), *words])

    @property
    def tag(self) -> str:
        """The noun that the route is about."""
        nouns = [part for part in self.path.split("/") if part and not part.startswith("{")]
        in_project = nouns[0] == "projects" and len(nouns) > 1
        return nouns[1] if in_project else nouns[0]

    @property
    def rule(self) -> str:
        """The path in Flask's form."""
        return PREFIX + re.sub(r"\{(\w+)\}", r"<\1>", self.path)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the path's parameters."""
        return tuple(re.findall(r"\{(\w+)\}", self.path))

    @cached_property
    def summary(self) -> str:
        return (inspect.getdoc(self.handler) or "").partition("\n")[0]

    @cached_property
    def hints(self) -> dict[str, Any]:
        return get_type_hints(self.handler)

    @cached_property
    def takes(self) -> frozenset[str]:
        """Names of the handler's parameters."""
        return frozenset(inspect.signature(self.handler).parameters)

    @cached_property
    def query_model(self) -> type[Query]:
        """The handler's query parameters and those of the conventions, as one model."""
        own: type[Query] = self.query or self.hints.get("query", Query)
        shared = {Mode.CHANGE: ChangeQuery, Mode.START: StartQuery}.get(self.mode)
        if shared is None or issubclass(own, shared):
            return own
        if own is Query:
            return shared
        return create_model(f"{own.__name__}And{shared.__name__}", __base__=(own, shared))

    @cached_property
    def body_model(self) -> type[BaseModel] | None:
        return self.hints.get("body")

    @cached_property
    def patch_model(self) -> type[BaseModel] | None:
        """What a merge patch is of."""
        hint = self.hints.get("patch")
        return get_args(hint)[0] if get_origin(hint) is Patch else None

    @cached_property
    def view_model(self) -> type[BaseModel] | None:
        """What a success answers; None: operations, or described in ``answers``."""
        hint = self.hints.get("return")
        return get_args(hint)[0] if get_origin(hint) is Answer else None

    def check(self) -> None:
        """Refuse a route that is not complete, at start and not at the first request."""
        if not self.summary:
            raise TypeError(f"{self.method} {self.path}: its handler has no docstring")
        hint = self.hints.get("return")
        answers = self.view_model is not None or Started in (hint, *get_args(hint))
        if self.mode is not Mode.RAW and not answers:
            raise TypeError(f"{self.method} {self.path}: annotate what its handler answers")
        if (self.access is Access.ROLE) != (self.action is not None):
            raise TypeError(f"{self.method} {self.path}: say which action it needs")


def _access(action: Action | None) -> Access:
    return Access.ROLE if action is not None else Access.OWN


def read(path: str, handler: Callable[..., Any], action: Action | None) -> Route:
    """GET one resource or a list."""
    return Route(
        method="GET",
        path=path,
        handler=handler,
        action=action,
        mode=Mode.READ,
        access=_access(action),
    )


def create(path: str, handler: Callable[..., Any], action: Action | None) -> Route:
    """POST that makes a resource: 201."""
    return change("POST", path, handler, action, status=201)


def change(
    method: str, path: str, handler: Callable[..., Any], action: Action | None, status: int = 200
) -> Route:
    """A change that is done when it is answered."""
    return Route(
        method=method,
        path=path,
        handler=handler,
        action=action,
        mode=Mode.CHANGE,
        status=status,
        access=_access(action),
    )


def delete(path: str, handler: Callable[..., Any], action: Action | None) -> Route:
    """DELETE that is done when it is answered: 204."""
    return change("DELETE", path, handler, action, status=204)


def start(
    method: str,
    path: str,
    handler: Callable[..., Any],
    action: Action,
    *,
    answers: Mapping[int, Any] | None = None,
    deprecated: bool = False,
) -> Route:
    """A change that goes on after its answer: 202 with the operation.

    :param answers: what else it answers, by status, where it may be finished at once.
    """
    return Route(
        method=method,
        path=path,
        handler=handler,
        action=action,
        mode=Mode.START,
        status=202,
        answers=dict(answers or {}),
        deprecated=deprecated,
    )


def upload(path: str, handler: Callable[..., Any], action: Action) -> Route:
    """POST of a file that is worked on after the answer: 202 with the operation."""
    return Route(
        method="POST",
        path=path,
        handler=handler,
        action=action,
        mode=Mode.START,
        status=202,
        takes_file=True,
    )


def raw(
    method: str,
    path: str,
    handler: Callable[..., Any],
    action: Action | None,
    *,
    status: int = 200,
    access: Access | None = None,
    query: type[Query] | None = None,
    headers: type[BaseModel] | None = None,
    body_media_type: str | None = None,
    answers: Mapping[int, Any] | None = None,
) -> Route:
    """A route that opens its units of work itself; see the module's docstring.

    :param answers: what it answers, by status: a model, a media type, or media types with a
        model or a schema each. Default: nothing, with ``status``.
    """
    return Route(
        method=method,
        path=path,
        handler=handler,
        action=action,
        mode=Mode.RAW,
        access=access or _access(action),
        status=status,
        query=query,
        headers=headers,
        body_media_type=body_media_type,
        answers=dict(answers or {status: None}),
    )
