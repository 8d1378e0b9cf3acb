"""The way of every request: authenticate, authorise, parse, handle, commit, answer."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, get_args, get_type_hints

import structlog
from flask import Request, Response
from pydantic import BaseModel

from virtmgr.api import idempotency, parsing
from virtmgr.api.answers import Answer, Started
from virtmgr.api.conventions import ListParameters, Query, StartQuery
from virtmgr.api.idempotency import Remembered
from virtmgr.api.merge_patch import Patch
from virtmgr.api.read_cache import LIFETIME, ReadCache
from virtmgr.api.routing import PREFIX, Access, Mode, Route
from virtmgr.api.schemas.operations import OperationBatch, presenter
from virtmgr.api.secrets import redacted
from virtmgr.api.sparse import check_fields, item_model, parse_fields, select
from virtmgr.api.uploads import Upload, receive
from virtmgr.domain.access import Action, Principal
from virtmgr.domain.errors import InvalidRequest, NameTaken, Unavailable
from virtmgr.domain.project import Origin
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import auth, operations
from virtmgr.services.auth import Recognised
from virtmgr.services.container import Services
from virtmgr.services.context import Context, open_context
from virtmgr.services.placement import Overtaken

log = structlog.get_logger(__name__)

_JSON: Final = "application/json"
_TRIES: Final = 8
_PAUSE: Final = 0.005  # seconds; doubles with each try
_LONGEST_AGENT: Final = 256  # characters that are kept of a User-Agent


@dataclass(frozen=True)
class RawRequest:
    """What a raw handler gets: the request, who asks, and no unit of work.

    The route's action has been checked, on the project of the path if it has one.
    """

    services: Services
    principal: Principal | None  # None: the route is public
    request: Request
    project_id: str | None
    query: Any

    @property
    def secret(self) -> str:
        """The token that was sent."""
        return auth.bearer_token(self.request.headers.get("Authorization"))

    @property
    def origin(self) -> Origin:
        """Where the request comes from."""
        return _origin(self.request)

    @contextmanager
    def context(self, action: Action) -> Iterator[Context]:
        """A context for reading, in a unit of work of its own."""
        assert self.principal is not None  # public routes read nothing that anybody owns
        with self.services.units(read_only=True) as uow:
            yield open_context(self.services, uow, self.principal, action, project=self.project_id)


@dataclass(frozen=True)
class _Parsed:
    arguments: Mapping[str, Any]
    query: Query
    if_match: frozenset[int] | None
    key: str | None
    hash: str
    upload: Upload | None
    origin: Origin


def dispatch(
    services: Services, cache: ReadCache, route: Route, request: Request, path: dict[str, str]
) -> Response:
    """Answer one request to ``route``.

    :raises VirtmgrError: to be answered as a problem.
    """
    if route.mode is Mode.READ:
        return _response(_read(services, cache, route, request, path))
    principal, project_id = _admit(services, route, request, path)
    if route.takes_file or route.body_media_type is not None:
        request.max_content_length = sys.maxsize  # streamed, so memory does not limit it
    if route.mode is Mode.RAW:
        return _handle_raw(services, route, principal, project_id, request, path)
    parsed = _parse(services, route, request, path)
    assert principal is not None  # only raw routes are public
    return _change(services, route, principal, parsed, path)


def is_background(request: Request) -> bool:
    """Whether a program asks by itself, with nobody in front of it: no session lives on that."""
    return "X-Background" in request.headers


def _origin(request: Request) -> Origin:
    agent = request.headers.get("User-Agent", "")
    printable = "".join(sign for sign in agent if sign.isprintable())
    return Origin(request.remote_addr, printable[:_LONGEST_AGENT] or None)


@contextmanager
def _authenticated(services: Services, request: Request) -> Iterator[tuple[UnitOfWork, Recognised]]:
    """A unit of work for reading, and who asks."""
    secret = auth.bearer_token(request.headers.get("Authorization"))
    background = is_background(request)
    with services.units(read_only=True) as uow:
        known = auth.recognise(uow, secret, services.clock.now(), background=background)
        yield uow, known
    auth.note_use(services, known)


def _admit(
    services: Services, route: Route, request: Request, path: Mapping[str, str]
) -> tuple[Principal | None, str | None]:
    """Refuse before the body is even read; who asks, and the id of the path's project."""
    if route.access is Access.PUBLIC:
        return None, None
    with _authenticated(services, request) as (uow, known):
        who = known.principal
        context = open_context(services, uow, who, route.action, project=path.get("project"))
        return who, context.project.id if context.project else None


def _parse(services: Services, route: Route, request: Request, path: Mapping[str, str]) -> _Parsed:
    arguments: dict[str, Any] = {name: value for name, value in path.items() if name in route.takes}
    query = parsing.parse_query(route.query_model, request.args)
    key = parsing.parse_idempotency_key(request.headers.get("Idempotency-Key"))
    if "query" in route.takes:
        arguments["query"] = query
    upload, body = None, b""
    if route.takes_file:
        arguments["upload"] = upload = receive(services, request)
        body = upload.digest.encode()
    elif route.mode is not Mode.READ:
        body = _body(request)
        arguments |= _parse_body(route, body, request.content_type)
    return _Parsed(
        arguments=arguments,
        query=query,
        if_match=parsing.parse_if_match(request.headers.get("If-Match")),
        # A dry run has no effect that a key could keep from happening twice.
        key=key if route.method == "POST" and not getattr(query, "dry_run", False) else None,
        hash=idempotency.request_hash(request.method, request.full_path, body),
        upload=upload,
        origin=_origin(request),
    )


def _body(request: Request) -> bytes:
    """The whole body.

    :raises RequestEntityTooLarge: it is longer than allowed.
    """
    body = request.get_data()
    if request.content_length is None:
        request.stream.read(1)  # in chunks: only the attempt to read on tells that there is more
    return body


def _parse_body(route: Route, body: bytes, content_type: str | None) -> dict[str, Any]:
    if route.body_model is not None:
        document = parsing.parse_json(body, content_type)
        return {"body": parsing.parse_body(route.body_model, document)}
    if route.patch_model is not None:
        return {"patch": Patch(parsing.parse_patch(parsing.parse_json(body, content_type)))}
    if body.strip() not in (b"", b"{}"):
        raise InvalidRequest("this request takes no body", hint="send it without one")
    return {}


def _handle_raw(
    services: Services,
    route: Route,
    principal: Principal | None,
    project_id: str | None,
    request: Request,
    path: Mapping[str, str],
) -> Response:
    call = RawRequest(
        services=services,
        principal=principal,
        request=request,
        project_id=project_id,
        query=parsing.parse_query(route.query_model, request.args),
    )
    arguments: dict[str, Any] = {name: value for name, value in path.items() if name in route.takes}
    if route.body_model is not None:
        arguments |= _parse_body(route, _body(request), request.content_type)
    response: Response = route.handler(call, **arguments)
    return response


def answer_view(view: BaseModel, status: int = 200) -> Response:
    """The response of a raw handler that answers JSON."""
    return _response(Remembered(status, view.model_dump_json(), None, None))


def answer_read(
    call: RawRequest, action: Action, handler: Callable[[Context, Any], Answer[Any]]
) -> Response:
    """The response of a raw handler that reads like any other handler."""
    with call.context(action) as context:
        answer = handler(context, call.query)
        model = get_args(get_type_hints(handler)["return"])[0]
        body = _render(answer.view, call.query, model)
        return _response(Remembered(200, body, None, answer.version))


def _read(
    services: Services,
    cache: ReadCache,
    route: Route,
    request: Request,
    path: Mapping[str, str],
) -> Remembered:
    secret = auth.bearer_token(request.headers.get("Authorization"))
    asker = "background" if is_background(request) else "person"
    key = (auth.hash_secret(secret), asker, request.full_path)
    stamp, now = services.units.stamp(), services.clock.now()
    kept = cache.find(key, stamp, now)
    if kept is not None:
        return kept
    with _authenticated(services, request) as (uow, known):
        who = known.principal
        context = open_context(services, uow, who, route.action, project=path.get("project"))
        parsed = _parse(services, route, request, path)  # whoever may not, learns nothing of this
        answer: Answer[Any] = route.handler(context, **parsed.arguments)
        body = _render(answer.view, parsed.query, route.view_model)
    given = Remembered(route.status, body, None, answer.version)
    cache.keep(key, stamp, now, min(now + LIFETIME, known.good_until), given)
    return given


def _change(
    services: Services,
    route: Route,
    principal: Principal,
    parsed: _Parsed,
    path: Mapping[str, str],
) -> Response:
    try:
        given, fresh = _try_until_done(services, route, principal, parsed, path)
    except BaseException:
        if parsed.upload is not None:
            parsed.upload.discard()
        raise
    if parsed.upload is not None and not fresh:
        parsed.upload.discard()
    if isinstance(parsed.query, StartQuery) and parsed.query.wait and not parsed.query.dry_run:
        given = _wait(services, principal, given, parsed.query.wait)
    response = _response(given)
    if not fresh and parsed.key is not None:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _try_until_done(
    services: Services,
    route: Route,
    principal: Principal,
    parsed: _Parsed,
    path: Mapping[str, str],
) -> tuple[Remembered, bool]:
    """Run the handler in a unit of work, anew when another transaction was faster."""
    overtaken = False
    for number in range(_TRIES):
        try:
            return _once(services, route, principal, parsed, path, overtaken=overtaken)
        except idempotency.Expired:
            idempotency.forget(services)
        except Overtaken:
            overtaken = True
            log.debug("overtaken", tries=number + 1)
        except NameTaken:
            if parsed.key is None or not _is_taken(services, principal, parsed.key):
                raise
        except Unavailable as error:
            if error.code != "database_busy" or number + 1 == _TRIES:
                raise
        time.sleep(random.uniform(0, _PAUSE * 2**number))
    raise Unavailable(
        f"{route.summary}: tried {_TRIES} times, and other requests were faster each time",
        code="contention",
        hint="try again in a moment",
    )


def _is_taken(services: Services, principal: Principal, key: str) -> bool:
    """Whether the request with the same key that was faster is committed by now."""
    with services.units(read_only=True) as uow:
        return uow.idempotency.get(principal.user_id, key) is not None


def _once(
    services: Services,
    route: Route,
    principal: Principal,
    parsed: _Parsed,
    path: Mapping[str, str],
    *,
    overtaken: bool,
) -> tuple[Remembered, bool]:
    """One try; what to answer, and whether it was done now (and not before, or not at all)."""
    dry_run = bool(getattr(parsed.query, "dry_run", False))
    with services.units() as uow:
        context = open_context(
            services,
            uow,
            principal,
            route.action,
            project=path.get("project"),
            expected_versions=parsed.if_match,
            overtaken=overtaken,
            origin=parsed.origin,
        )
        if parsed.key is not None:
            remembered = idempotency.recall(context, parsed.key, parsed.hash)
            if remembered is not None:
                return remembered, False
        result = route.handler(context, **parsed.arguments)
        if parsed.if_match is not None and not context.version_checked:
            raise InvalidRequest("If-Match is not understood here", hint="leave it out")
        uow.flush()
        if dry_run:
            return _would(context, result), False
        view, given = _given(context, route, result)
        if parsed.key is not None:
            idempotency.remember(context, parsed.key, _without_secrets(given, view))
        uow.after_commit(services.committed.notify)
        uow.commit()
    return given, True


def _given(
    context: Context, route: Route, result: Answer[Any] | Started
) -> tuple[BaseModel, Remembered]:
    if isinstance(result, Started):
        view = _present_started(context, result)
        location = None if result.many else f"/operations/{result.operations[0].id}"
        return view, Remembered(route.status, view.model_dump_json(), location, None)
    status = result.status or route.status
    body = "" if status == 204 else result.view.model_dump_json()
    return result.view, Remembered(status, body, result.location, result.version)


def _present_started(context: Context, started: Started) -> BaseModel:
    present = presenter(context)
    views = [present(operation) for operation in started.operations]
    return OperationBatch(items=views) if started.many else views[0]


def _without_secrets(given: Remembered, view: BaseModel) -> Remembered:
    """Secrets are shown once and never kept: an answer given again has null in their place."""
    if given.status == 204:
        return given
    body = redacted(view).model_dump_json()
    return Remembered(given.status, body, given.location, given.version)


def _would(context: Context, result: Answer[Any] | Started) -> Remembered:
    """What a dry run answers. Nothing that the handler did is committed."""
    if isinstance(result, Answer):
        would = redacted(result.view).model_dump(mode="json")
    else:
        would = _present_started(context, result).model_dump(mode="json")
        if result.would is not None:
            would |= result.would()
    return Remembered(200, json.dumps({"dry_run": True, "would": would}), None, None)


def _wait(
    services: Services, principal: Principal, given: Remembered, seconds: float
) -> Remembered:
    """Wait for the operations that were begun; 200 if all are finished."""
    document = json.loads(given.body)
    ids = [item["id"] for item in document.get("items", [document])]
    if given.status != 202:
        return given  # finished at once
    done = operations.wait(services, ids, seconds)
    with services.units(read_only=True) as uow:
        present = presenter(open_context(services, uow, principal, None))
        found = [uow.operations.get(id) for id in ids]
        views = [present(operation) for operation in found if operation is not None]
        if not views:
            return given
        view: BaseModel = OperationBatch(items=views) if "items" in document else views[0]
    return Remembered(200 if done else 202, view.model_dump_json(), given.location, None)


def _render(view: BaseModel, query: Query, model: Any) -> str:
    """The JSON of what a route that answers ``model`` reads."""
    if not isinstance(query, ListParameters) or query.fields is None:
        return view.model_dump_json()
    tree = parse_fields(query.fields)
    check_fields(tree, item_model(model))
    document = view.model_dump(mode="json")
    document["items"] = [select(item, tree) for item in document["items"]]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _response(given: Remembered) -> Response:
    response = Response(given.body, status=given.status, mimetype=_JSON)
    if given.status == 204:
        del response.headers["Content-Type"]
    if given.version is not None:
        response.headers["ETag"] = f'"{given.version}"'
    if given.location is not None:
        response.headers["Location"] = PREFIX + given.location
    return response
