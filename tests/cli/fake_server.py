"""A small REST API as docs/api.md has it, over real HTTP(S), with just enough behaviour."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.serving import BaseWSGIServer, make_server

TOKEN = "vmt_secret"
API = "/api/v1"
ONE = f"{API}/projects/<project>/workloads/<name>"
NOW = "2026-01-02T03:04:05Z"


def problem(status: int, code: str, detail: str, **more: Any) -> Response:
    body = {"status": status, "code": code, "title": code, "detail": detail, **more}
    return Response(json.dumps(body), status, content_type="application/problem+json")


@dataclass
class State:
    """What the server holds, and what it was asked."""

    workloads: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # states to come
    requests: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)
    answers: list[Response | Callable[[], Response]] = field(default_factory=list)  # given first
    pushed: bytes = b""
    uploaded: bytes = b""
    cut_uploads: int = 0  # bytes after which each request of an upload breaks
    stream_url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    last_event_ids: list[str | None] = field(default_factory=list)

    def workload(self, name: str, **spec: Any) -> dict[str, Any]:
        spec = {"name": name, "kind": "container", "image": "busybox", **spec}
        resources = {"vcpus": 1, "memory": 536870912, **spec.get("resources", {})}
        nic = {"index": 0, "network": {"id": "n1", "name": "default"}, "mac": "52:0:0:0:0:1"}
        made = {
            "id": f"id-{name}",
            "name": name,
            "project": {"id": "p1", "name": "default"},
            "kind": spec["kind"],
            "init": spec.get("init", "app") if spec["kind"] == "container" else None,
            "spec": {**spec, "resources": resources},
            "status": {"state": "running", "restarts": 0},
            "generation": 1,
            "host": {"id": "h1", "name": "host1"},
            "image": {"id": "i1", "name": spec["image"]},
            "nics": [{**nic, "addresses": ["10.0.0.5"]}],
            "labels": spec.get("labels", {}),
            "created_at": NOW,
            "version": 1,
        }
        self.workloads[name] = made
        return made

    def operation(self, verb: str, name: str, *states: dict[str, Any], **more: Any) -> Response:
        """Begin an operation that is found in each of ``states`` in turn."""
        number = f"op{len(self.operations)}"
        target = {"type": "workload", "id": f"id-{name}", "name": name, **more}
        base = {"id": number, "verb": verb, "target": target, "progress": 0.0, "message": ""}
        steps = states or ({"state": "succeeded"},)
        self.operations[number] = [{**base, **step} for step in steps]
        response = jsonify({**base, "state": "pending"})
        response.status_code = 202
        return response


def app_for(state: State) -> Flask:
    app = Flask("fake")
    app.json.sort_keys = False  # type: ignore[attr-defined]

    @app.before_request
    def note() -> Response | None:
        body = request.get_json(silent=True) if request.is_json else None
        headers = {key.lower(): value for key, value in request.headers.items()}
        state.requests.append((request.method, request.full_path.rstrip("?"), body, headers))
        if state.answers:
            answer = state.answers.pop(0)
            return answer() if callable(answer) and not isinstance(answer, Response) else answer
        if request.path == f"{API}/login":
            return None
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthenticated", "the token is not valid")
        return None

    @app.post(f"{API}/login")
    def login() -> Any:
        body = request.get_json()
        if body["password"] != "right":
            return problem(401, "unauthenticated", "name or password is wrong", hint="try again")
        return {"token": TOKEN}

    _serve_workloads(app, state)
    _serve_contents(app, state)
    _serve_uploads(app, state)
    _serve_others(app, state)
    return app


def _serve_workloads(app: Flask, state: State) -> None:
    @app.get(f"{API}/workloads")
    @app.get(f"{API}/projects/<project>/workloads")
    def list_workloads(project: str = "") -> Any:  # noqa: ARG001
        items = sorted(state.workloads.values(), key=lambda each: str(each["name"]))
        start, limit = int(request.args.get("cursor", 0)), min(2, int(request.args["limit"]))
        more = start + limit < len(items)
        return {
            "items": items[start : start + limit],
            "next_cursor": str(start + limit) if more else None,
        }

    @app.post(f"{API}/projects/<project>/workloads")
    def create(project: str) -> Any:  # noqa: ARG001
        spec = request.get_json()
        if request.args.get("dry_run") == "true":
            return {"dry_run": True, "would": {"host": "host1", "name": spec["name"]}}
        if spec["name"] in state.workloads:
            return problem(409, "name_taken", f"{spec['name']} is taken", field="name")
        state.workload(**spec)
        return state.operation("create", spec["name"])

    @app.route(ONE, methods=["GET", "PATCH", "DELETE"])
    def workload(project: str, name: str) -> Any:  # noqa: ARG001
        found = state.workloads.get(name)
        if found is None:
            return problem(404, "not_found", f"there is no workload {name}")
        if request.method == "PATCH":
            if request.headers.get("If-Match", '"1"') != '"1"':
                return problem(412, "precondition_failed", "it has changed")
            found["spec"] = _merge(found["spec"], request.get_json())
            return state.operation("update", name)
        if request.method == "DELETE":
            del state.workloads[name]
            return state.operation("delete", name)
        response = jsonify(found)
        response.headers["ETag"] = '"1"'
        return response


def _serve_contents(app: Flask, state: State) -> None:
    @app.post(f"{ONE}/<verb>")
    def act(project: str, name: str, verb: str) -> Any:  # noqa: ARG001
        if verb in ("exec", "console", "vnc"):
            return {"url": state.stream_url, "expires_at": NOW}
        if name not in state.workloads:
            return problem(404, "not_found", f"there is no workload {name}")
        return state.operation(verb, name)

    @app.get(f"{API}/operations/<number>")
    def operation(number: str) -> Any:
        steps = state.operations[number]
        return steps.pop(0) if len(steps) > 1 else steps[0]

    @app.get(f"{ONE}/logs")
    def logs(project: str, name: str) -> Any:  # noqa: ARG001
        return Response(iter([b"one\n", b"two\n"]), content_type="text/plain")

    @app.route(f"{ONE}/files", methods=["GET", "PUT"])
    def files(project: str, name: str) -> Any:  # noqa: ARG001
        if request.method == "PUT":
            state.pushed = request.stream.read()
            return Response(status=204)
        return Response(_some_tar(), content_type="application/x-tar")


def _serve_uploads(app: Flask, state: State) -> None:
    def view(size: int) -> Any:
        return jsonify({"id": f"part-{size}", "size": size, "offset": len(state.uploaded)})

    @app.post(f"{API}/images/uploads")
    def begin_upload() -> Any:
        return view(request.json["size"])

    @app.route(f"{API}/images/uploads/part-<int:size>", methods=["GET", "PATCH"])
    def upload(size: int) -> Any:
        if request.method == "PATCH":
            assert int(request.headers["Upload-Offset"]) == len(state.uploaded)
            part = request.stream.read(state.cut_uploads or size)
            state.uploaded += part
            if state.cut_uploads and len(state.uploaded) < size:
                return problem(503, "unavailable", "the server was stopped")
        return view(size)

    @app.post(f"{API}/images/import")
    def import_image() -> Any:
        return state.operation("import", request.json["name"], type="image")


def _serve_others(app: Flask, state: State) -> None:
    @app.route(f"{API}/projects/<project>/<plural>/<name>", methods=["GET", "PATCH"])
    def other(project: str, plural: str, name: str) -> Any:  # noqa: ARG001
        found = getattr(state, plural).get(name)
        if found is None:
            return problem(404, "not_found", f"there is no {plural} {name}")
        if request.method == "PATCH":
            found.update(request.get_json())
        return found

    @app.post(f"{API}/projects/<project>/<plural>")
    def make(project: str, plural: str) -> Any:  # noqa: ARG001
        body = request.get_json()
        getattr(state, plural)[body["name"]] = body
        return body, 201

    @app.get(f"{API}/events")
    def events() -> Any:
        if request.headers.get("Accept") != "text/event-stream":
            return {"items": state.events[:1], "next_cursor": None}
        last = request.headers.get("Last-Event-ID")
        state.last_event_ids.append(last)
        return Response(_some_events(state.events, int(last or 0)), mimetype="text/event-stream")

    @app.get(f"{API}/schema/workload")
    def schema() -> Any:
        from virtmgr.domain.workload import WorkloadSpec

        return WorkloadSpec.model_json_schema()


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _some_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        directory = tarfile.TarInfo("etc")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        content = tarfile.TarInfo("etc/hosts")
        content.size = 5
        tar.addfile(content, io.BytesIO(b"hosts"))
    return buffer.getvalue()


def _some_events(events: list[dict[str, Any]], last: int) -> Iterator[str]:
    """One event a connection, then it ends: so the reader has to resume."""
    yield ": keep-alive\n\n"
    for event in events:
        if event["sequence"] > last:
            yield f"id: {event['sequence']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
            return


class FakeServer:
    """The API on a free port of loopback, in a thread."""

    def __init__(self, state: State, certificate: tuple[str, str] | None = None) -> None:
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", 0, app_for(state), threaded=True, ssl_context=certificate
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
