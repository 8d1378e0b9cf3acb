"""What agents call: join, sync, wake, renew, blobs. Served on the agents' listener only.

Everything but ``join`` needs a client certificate that the private CA has issued to a host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from flask import Blueprint, Flask, Response, jsonify, request
from pydantic import ValidationError
from pydantic_core import from_json

from virtmgr.api import problems
from virtmgr.api.peers import has_left, host_certificate
from virtmgr.api.wakes import Wakes
from virtmgr.domain.errors import InvalidRequest, NotFound, Unavailable
from virtmgr.domain.host import Host
from virtmgr.domain.machine import Machine
from virtmgr.domain.sync import ACCEPTS, FILE_SYSTEMS, USAGE_HISTORY, SyncRequest
from virtmgr.domain.values import Message, first_fault
from virtmgr.ports.certificates import Authority
from virtmgr.services import enrolment
from virtmgr.services.container import Services
from virtmgr.services.sync import sync
from virtmgr.services.turns import Turns
from virtmgr.services.wake import HostWake

PREFIX = "/agent/v1"
MAX_SYNC = 32 * 1024**2  # bytes
_CHUNK = 1 << 20
_SHORT = 1024  # bytes; a sync that only renews a lease is shorter
SYNCS_AT_ONCE = 8  # so that a fleet that comes back leaves room for people's requests
SYNC_PATIENCE = 24  # seconds; an agent gives up after 30, and its turn has to be had by then

_M = TypeVar("_M", bound=Message)


class JoinBody(Message):
    token: str
    signing_request: str
    hostname: str
    machine_id: str = ""


class RenewBody(Message):
    signing_request: str


def create_agent_app(services: Services, authority: Authority, wake: HostWake) -> Flask:
    """The application behind the agents' listener."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_SYNC
    turns = Turns(SYNCS_AT_ONCE)
    routes = Blueprint("agent", __name__, url_prefix=PREFIX)

    @routes.post("/join")
    def join() -> Response:
        body = _parse(JoinBody)
        host, issued = enrolment.join(
            services,
            authority,
            body.token,
            body.signing_request,
            Machine(body.machine_id, body.hostname),
            _peer_address(),
        )
        return jsonify(
            host_id=host.id,
            name=host.name,
            certificate=issued.pem.decode(),
            ca=authority.certificate().decode(),
        )

    @routes.post("/renew")
    def renew() -> Response:
        host_id, serial = host_certificate(request.environ)
        body = _parse(RenewBody)
        issued = enrolment.renew(
            services, authority, host_id, serial, body.signing_request, _peer_address()
        )
        return jsonify(certificate=issued.pem.decode())

    @routes.post("/sync")
    def take_sync() -> Response:
        host_id, serial = host_certificate(request.environ)
        body = request.get_data()
        said = _parse(SyncRequest) if len(body) <= _SHORT else None
        with _turn(turns, body, said):
            if has_left(request.environ):  # what it says, it says again
                raise Unavailable("sync: the agent has given up waiting", code="left")
            response = sync(services, host_id, said or _parse(SyncRequest), serial=serial)
        return Response(
            response.model_dump_json(exclude_unset=True),
            mimetype="application/json",
            headers={ACCEPTS: f"{USAGE_HISTORY} {FILE_SYSTEMS}"},
        )

    @routes.get("/blobs/<digest>")
    def blob(digest: str) -> Response:
        _authenticate(services)
        return _send_blob(services, digest)

    app.register_blueprint(routes)
    problems.register(app)
    app.wsgi_app = Wakes(services, wake, f"{PREFIX}/wake", app.wsgi_app)  # type: ignore[method-assign]
    return app


def _turn(turns: Turns, body: bytes, said: SyncRequest | None) -> AbstractContextManager[None]:
    """A lease is renewed at once: guests may depend on it. All else has its turn, and what is not
    short is read in it: as models, what a thousand hosts say at once takes eight times the memory.

    :param said: what was read already.
    """
    if said is None:
        return turns.turn("sync", SYNC_PATIENCE, urgent=_is_brief(body))
    if said.only_renews:
        return nullcontext()
    return turns.turn("sync", SYNC_PATIENCE, urgent=said.brief)


def _is_brief(body: bytes) -> bool:
    try:
        said = from_json(body)
    except ValueError:  # who reads it says what is wrong
        return False
    return isinstance(said, dict) and said.get("brief") is True


def _parse(model: type[_M]) -> _M:
    try:
        return model.read(request.get_data())
    except ValidationError as error:
        field, what = first_fault(error)
        raise InvalidRequest(
            f"the agent's request is malformed at {field or 'its top'}: {what}",
            field=field or None,
            hint="are agent and control plane of compatible versions?",
        ) from error


def _authenticate(services: Services) -> Host:
    """The host that the connection's certificate was issued to.

    TLS has verified it against the private CA; its serial number is looked up here.
    """
    return enrolment.authenticate(services, *host_certificate(request.environ))


def _peer_address() -> str:
    return request.remote_addr or "127.0.0.1"


def _send_blob(services: Services, digest: str) -> Response:
    offset = _range_start(request.headers.get("Range"))
    try:
        size = services.blobs.size(digest)
    except (KeyError, FileNotFoundError, ValueError) as error:
        raise NotFound(f"there is no blob {digest}", code="blob_not_found") from error
    if offset > size:
        raise InvalidRequest(f"blob {digest} has {size} bytes, not {offset}")

    def chunks() -> Iterator[bytes]:
        with services.blobs.open(digest, offset) as file:
            while content := file.read(_CHUNK):
                yield content

    headers = {"Content-Length": str(size - offset)}
    if offset:
        headers["Content-Range"] = f"bytes {offset}-{size - 1}/{size}"
    return Response(
        chunks(),
        status=206 if offset else 200,
        headers=headers,
        mimetype="application/octet-stream",
    )


def _range_start(header: str | None) -> int:
    if header is None:
        return 0
    unit, _, rest = header.partition("=")
    start, dash, end = rest.partition("-")
    if unit != "bytes" or not dash or end or not start.isdigit():
        raise InvalidRequest("only ranges of the form 'bytes=N-' are served", field="Range")
    return int(start)
