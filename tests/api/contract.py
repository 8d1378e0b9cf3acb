"""A client that checks every answer against the OpenAPI document."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import jsonschema
from flask import Flask
from werkzeug.test import TestResponse

PREFIX = "/api/v1"


class Contract:
    """What the OpenAPI document says of each answer."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._templates = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "$"), path)
            for path in document["paths"]
        ]
        self._templates.sort(key=lambda pair: pair[1].count("{"))
        self._validators: dict[str, Any] = {}

    def check(self, method: str, path: str, response: TestResponse, *, sparse: bool) -> None:
        """Fail unless the status, the media type and the body are documented."""
        template = next((t for pattern, t in self._templates if pattern.match(path)), None)
        if template is None or method.lower() not in self.document["paths"][template]:
            assert response.status_code in (404, 405), f"{method} {path} is not documented"
            return
        where = f"{method} {template} → {response.status_code}"
        responses = self.document["paths"][template][method.lower()]["responses"]
        assert str(response.status_code) in responses, f"{where}: this status is not documented"
        content = responses[str(response.status_code)].get("content")
        if content is None:
            assert response.data == b"", f"{where}: no body is documented"
            return
        assert response.mimetype in content, f"{where}: {response.mimetype} is not documented"
        mimetype = str(response.mimetype)
        if "json" in mimetype:
            schema = content[mimetype]["schema"]
            self._validate(schema, json.loads(response.data), where, sparse=sparse)

    def _validate(self, schema: Any, body: Any, where: str, *, sparse: bool) -> None:
        key = json.dumps([schema, sparse])
        if key not in self._validators:
            components = self.document["components"]
            if sparse:  # fields= leaves out what the schema requires
                components = _without_required(components)
            whole = {**schema, "components": components}
            self._validators[key] = jsonschema.Draft202012Validator(whole)
        errors = [error.message for error in self._validators[key].iter_errors(body)]
        assert not errors, f"{where}: {errors[:3]}"


def _without_required(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_required(v) for k, v in value.items() if k != "required"}
    return [_without_required(v) for v in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Reply:
    """An answer that has been checked."""

    status: int
    body: Any
    headers: Any

    @property
    def code(self) -> str:
        """The problem's code; an answer that is no problem has none."""
        return str(self.body["code"])


class Api:
    """Calls the application as one principal."""

    def __init__(self, app: Flask, token: str | None, contract: Contract) -> None:
        self.app = app
        self.token = token
        self.contract = contract

    def as_token(self, token: str | None) -> Api:
        return Api(self.app, token, self.contract)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        """:param options: ``headers``, ``query`` and ``data`` (raw bytes instead of ``body``)."""
        headers = dict(options.get("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        data = options.get("data")
        if body is not None:
            data = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        query = options.get("query", {})
        response = self.app.test_client().open(
            PREFIX + path, method=method, headers=headers, data=data, query_string=query
        )
        bare = PREFIX + path.partition("?")[0]
        self.contract.check(method, bare, response, sparse="fields" in query)
        decoded = json.loads(response.data) if response.data else None
        return Reply(response.status_code, decoded, response.headers)

    def get(self, path: str, **query: Any) -> Reply:
        return self.call("GET", path, query=query)

    def post(self, path: str, body: Any = None, **options: Any) -> Reply:
        return self.call("POST", path, body, **options)

    def patch(self, path: str, body: Any, **options: Any) -> Reply:
        return self.call("PATCH", path, body, **options)

    def put(self, path: str, body: Any) -> Reply:
        return self.call("PUT", path, body)

    def delete(self, path: str, **options: Any) -> Reply:
        return self.call("DELETE", path, **options)
