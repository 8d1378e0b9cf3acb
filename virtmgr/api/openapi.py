"""The OpenAPI 3.1 document: flask-openapi makes the paths, pydantic all schemas at once.

Schemas are made in one go because a model that is both taken and given (a workload's spec) has two
schemas, ``-Input`` and ``-Output``.

All of it is made when somebody asks for the document: what describes some hundred routes takes more
memory than what serves them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from flask_openapi import Info, OpenAPI, SecurityScheme
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

from virtmgr import __version__
from virtmgr.api.answers import View
from virtmgr.api.links import links
from virtmgr.api.parsing import IDEMPOTENCY_KEY
from virtmgr.api.problems import MEDIA_TYPE, Problem
from virtmgr.api.routing import Access, Mode, Route
from virtmgr.api.schemas.operations import OperationBatch, OperationView

_ModelMode = Literal["validation", "serialization"]
_REFERENCE: Final = "#/components/schemas/{model}"

_PROBLEMS: Final = {
    400: "The request is malformed.",
    401: "There is no valid token.",
    403: "The role is too small.",
    404: "It does not exist, or may not be seen.",
    408: "The body did not come in time.",
    409: "The present state does not allow it.",
    412: "It was changed meanwhile: If-Match does not match.",
    413: "The body is too large.",
    415: "The body is not of a type that is taken here.",
    422: "The request breaks the schema.",
    429: "Too many requests.",
    500: "A defect of virtmgr itself.",
    502: "A step on a host failed.",
    503: "A part that is needed does not answer.",
}
_ALWAYS: Final = (400, 401, 403, 404, 422, 500, 502, 503)
_ON_CHANGES: Final = (408, 409, 412, 413, 415, 429)


class DryRun(View):
    """What a change would do."""

    dry_run: Literal[True]
    would: dict[str, Any] = Field(description="The answer that the change would give.")


class _IdempotencyHeader(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY,
        description="Sent again within 24 hours, the first answer is given again.",
    )


class _IfMatchHeader(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    if_match: str | None = Field(
        None, alias="If-Match", description="The ETag that was read: refused if it is stale."
    )


def document(routes: Sequence[Route]) -> str:
    """The document of these routes, as JSON. It takes a part of a second."""
    documenter = Documenter(routes)
    app = _DocumentedApp(
        __name__,
        info=Info(
            title="virtmgr",
            version=__version__,
            description="One manager for virtual machines, system and application containers.",
        ),
        security_schemes={"token": SecurityScheme(type="http", scheme="bearer")},
        validation_error_model=Problem,
        doc_ui=False,
    )
    app.openapi_version = "3.1.0"
    for route in routes:
        decorate = getattr(app, route.method.lower())
        decorate(route.rule, **documenter.options(route))(_stub(route))
    app.own_schemas = documenter.schemas
    return json.dumps(app.api_doc, ensure_ascii=False)


class _DocumentedApp(OpenAPI):
    """An application that serves nothing: it collects an OpenAPI document of our own components."""

    own_schemas: Mapping[str, Any]

    def generate_spec_json(self) -> None:
        super().generate_spec_json()  # type: ignore[no-untyped-call]
        schemas = self.spec_json["components"]["schemas"]
        schemas.update(self.own_schemas)
        schemas.pop("Problem-Input", None)


class Documenter:
    """Describes routes with references into one set of schemas."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        wanted: list[tuple[type[BaseModel], _ModelMode]] = [
            (model, "serialization") for model in (Problem, DryRun, OperationView, OperationBatch)
        ]
        for route in routes:
            if route.body_model is not None:
                wanted.append((route.body_model, "validation"))
            if route.patch_model is not None:
                wanted.append((route.patch_model, "validation"))
            wanted += [(model, "serialization") for model in _answer_models(route)]
        unique = list(dict.fromkeys(wanted))
        self._references, whole = models_json_schema(unique, ref_template=_REFERENCE)
        self.schemas: dict[str, Any] = dict(whole.get("$defs", {}))
        self._problem = self._reference(Problem, "serialization")

    def _reference(self, model: type[BaseModel], mode: _ModelMode) -> dict[str, Any]:
        return dict(self._references[(model, mode)])

    def options(self, route: Route) -> dict[str, Any]:
        """Keyword arguments for flask-openapi's route decorators."""
        options: dict[str, Any] = {
            "summary": route.summary,
            **({"deprecated": True} if route.deprecated else {}),
            "operation_id": route.name,
            "tags": [{"name": route.tag}],
            "responses": self._responses(route),
        }
        if route.access is not Access.PUBLIC:
            options["security"] = [{"token": []}]
        body = self._request_body(route)
        if body is not None:
            options["request_body"] = body
        return options

    def _request_body(self, route: Route) -> dict[str, Any] | None:
        if route.body_model is not None:
            schema = self._reference(route.body_model, "validation")
            required = bool(self._definition(schema).get("required"))
            return {"required": required, "content": {"application/json": {"schema": schema}}}
        if route.patch_model is not None:
            patch = self._patch_schema(route.patch_model)
            content = {"application/merge-patch+json": {"schema": patch}}
            return {"required": True, "content": content | {"application/json": {"schema": patch}}}
        media_type = "application/octet-stream" if route.takes_file else route.body_media_type
        if media_type is not None:
            binary = {"type": "string", "format": "binary", "minLength": 1}
            return {"required": True, "content": {media_type: {"schema": binary}}}
        return None

    def _definition(self, reference: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.schemas[reference["$ref"].rpartition("/")[2]]
        return found

    def _patch_schema(self, model: type[BaseModel]) -> dict[str, Any]:
        """Any part of ``model``; null takes the default again (RFC 7396)."""
        whole = self._definition(self._reference(model, "validation"))
        name = f"{model.__name__}Patch"
        self.schemas[name] = {
            "title": name,
            "type": "object",
            "additionalProperties": False,
            "description": f"A JSON Merge Patch (RFC 7396) of {model.__name__}.",
            "properties": {
                field: _patched(schema) for field, schema in whole.get("properties", {}).items()
            },
        }
        return {"$ref": _REFERENCE.format(model=name)}

    def _responses(self, route: Route) -> dict[int, Any]:
        statuses = _ALWAYS if route.mode is Mode.READ else _ALWAYS + _ON_CHANGES
        content = {MEDIA_TYPE: {"schema": self._problem}}
        responses: dict[int, Any] = {
            status: {"description": _PROBLEMS[status], "content": content} for status in statuses
        }
        if route.mode is Mode.RAW:
            for status, described in route.answers.items():
                responses[status] = self._described(described)
            return responses
        return responses | self._successes(route)

    def _described(self, described: Any) -> dict[str, Any]:
        if isinstance(described, str):
            described = {described: {"type": "string", "format": "binary"}}
        if isinstance(described, dict):
            media = {
                kind: {
                    "schema": self._reference(what, "serialization") if _is_model(what) else what
                }
                for kind, what in described.items()
            }
            return {"description": "Success.", "content": media}
        if described is None:
            return {"description": "Success."}
        return _success(self._reference(described, "serialization"))

    def _successes(self, route: Route) -> dict[int, Any]:
        dry_run = self._reference(DryRun, "serialization")
        if route.mode is Mode.START:
            one = self._reference(OperationView, "serialization")
            many = self._reference(OperationBatch, "serialization")
            return {
                200: _success({"anyOf": [one, many, dry_run]}),
                202: _success({"anyOf": [one, many]}) | self._links(route),
                **{status: self._described(what) for status, what in route.answers.items()},
            }
        assert route.view_model is not None  # Route.check
        view = self._reference(route.view_model, "serialization")
        if route.mode is Mode.READ:
            return {200: _success(view)}
        if route.status == 200:
            return {200: _success({"anyOf": [view, dry_run]})}
        if route.status == 204:
            return {200: _success(dry_run), 204: {"description": "Done."}}
        return {200: _success(dry_run), route.status: _success(view) | self._links(route)}

    def _links(self, route: Route) -> dict[str, Any]:
        found = links(route, self._routes)
        return {"links": found} if found else {}


def _stub(route: Route) -> Callable[..., Any]:
    """What has the annotations that flask-openapi reads parameters from; nobody calls it."""

    def handle() -> None:
        """Documented, not served."""

    annotations: dict[str, Any] = {}
    if route.parameters:
        fields: dict[str, Any] = {
            name: (str, Field(description=f"Id or name of the {name}."))
            for name in route.parameters
        }
        annotations["path"] = create_model("Path", **fields)
    if route.query_model.model_fields:
        annotations["query"] = route.query_model
    headers = _headers(route)
    if headers is not None:
        annotations["header"] = headers
    handle.__annotations__ = annotations
    handle.__name__ = route.name
    return handle


def _headers(route: Route) -> type[BaseModel] | None:
    if route.mode not in (Mode.CHANGE, Mode.START):
        return route.headers
    return _IdempotencyHeader if route.method == "POST" else _IfMatchHeader


def _answer_models(route: Route) -> list[type[BaseModel]]:
    found: list[Any] = [route.view_model]
    for described in route.answers.values():
        found += described.values() if isinstance(described, dict) else [described]
    return [model for model in found if _is_model(model)]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _success(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": "Success.", "content": {"application/json": {"schema": dict(schema)}}}


def _patched(schema: Mapping[str, Any]) -> dict[str, Any]:
    description = {"description": schema["description"]} if "description" in schema else {}
    if "$ref" in schema or schema.get("type") == "object":
        return {"type": ["object", "string", "null"], **description}
    return {"anyOf": [dict(schema), {"type": "null"}], **description}
