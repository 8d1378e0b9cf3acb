"""Sessions of people: an API token in a cookie that scripts cannot read, and proof of origin.

A session is a token like any other: it is kept as a hash, listed, revoked and ends by itself. The
proof against requests forged by other sites is derived from it (OWASP's HMAC based token pattern),
so that any control plane of a database can check it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final
from urllib.parse import urlsplit

from flask import g, request
from werkzeug.exceptions import Forbidden
from werkzeug.wrappers import Response

from virtmgr.console.rest import Rest

COOKIE: Final = "__Host-virtmgr-session"
PROOF_HEADER: Final = "X-CSRF-Token"
PROOF_FIELD: Final = "csrf_token"
IDLE_SECONDS: Final = 30 * 60
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


def secret() -> str | None:
    """The session's token, if the browser sent one."""
    return request.cookies.get(COOKIE, "").partition("~")[2] or None


def token_id() -> str:
    """The id of the session's token, for revoking it."""
    return request.cookies.get(COOKIE, "").partition("~")[0]


def proof() -> str:
    """What forms of this session carry."""
    return hmac.new((secret() or "").encode(), b"csrf", hashlib.sha256).hexdigest()


def check_origin() -> None:
    """Refuse changes that another site has the browser send.

    :raises Forbidden: it comes from elsewhere, or a session's form lacks its proof.
    """
    if request.method in _SAFE:
        return
    if _is_foreign():
        raise Forbidden("the request comes from another site")
    if secret() is None:
        return  # there is no session whose rights could be used
    given = request.headers.get(PROOF_HEADER) or request.form.get(PROOF_FIELD, "")
    if not hmac.compare_digest(given.encode(), proof().encode()):
        raise Forbidden("the form is not of this session: load the page again, then repeat")


def _is_foreign() -> bool:
    """Whether the browser says that another site sends it (Fetch Metadata; older ones: Origin)."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and urlsplit(origin).netloc != request.host


def begin(response: Response, token_id: str, secret: str) -> None:
    """Let the browser keep the session's token until it was idle for long."""
    response.set_cookie(
        COOKIE,
        f"{token_id}~{secret}",
        max_age=IDLE_SECONDS,
        secure=True,
        httponly=True,
        samesite="Strict",
        path="/",
    )


def keep(response: Response) -> None:
    """The browser is in use: it is not idle from now on."""
    begin(response, token_id(), secret() or "")


def end(response: Response) -> None:
    """Let the browser forget."""
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="Strict", path="/")


def who() -> dict[str, Any] | None:
    """Who is logged in: the API's whoami; None: nobody. Asked once for a request.

    :raises Refusal: the token is not good any more.
    """
    if "who" not in g:
        rest: Rest = g.rest
        g.who = rest.get("/whoami").document if secret() else None
    found: dict[str, Any] | None = g.who
    return found
