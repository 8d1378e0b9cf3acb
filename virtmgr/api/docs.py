"""The OpenAPI document and a page to browse it, from files that are installed: no network."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response, send_from_directory

from virtmgr.api.routes import ROUTES
from virtmgr.api.routing import PREFIX

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>virtmgr API</title>
<link rel="icon" href="docs/assets/images/swagger.svg">
<link rel="stylesheet" href="docs/assets/css/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="docs/assets/js/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# validatorUrl null: otherwise the page asks a server on the internet for a badge.
_START: Final = """"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def register(app: Flask) -> None:
    """Add ``openapi.json``, the page ``docs`` and what it needs."""
    pages = Blueprint("docs", __name__, url_prefix=PREFIX)

    def page() -> Response:
        return Response(_PAGE, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})

    pages.add_url_rule(
        "/openapi.json", "openapi", lambda: Response(_document(), mimetype="application/json")
    )
    pages.add_url_rule("/docs", "page", page)
    pages.add_url_rule(
        "/docs/start.js", "start", lambda: Response(_START, mimetype="text/javascript")
    )
    pages.add_url_rule(
        "/docs/assets/<path:name>", "assets", lambda name: send_from_directory(_assets(), name)
    )
    app.register_blueprint(pages)


@cache
def _document() -> str:
    from virtmgr.api.openapi import document  # with all that describes routes: few ever ask

    return document(ROUTES)


@cache
def _assets() -> Path:
    found = find_spec("flask_openapi_swagger")
    if found is None or found.origin is None:
        raise RuntimeError("flask_openapi_swagger is not installed, which we depend on")
    return Path(found.origin).parent / "templates" / "swagger"
