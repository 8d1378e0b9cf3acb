"""The OpenAPI document and a page to browse it, from files that are installed: no network."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final

import flask_openapi_swagger
from flask import Blueprint, Response, send_from_directory

from virtmgr.api.openapi import DocumentedApp
from virtmgr.api.routing import PREFIX

_ASSETS: Final = Path(flask_openapi_swagger.__file__).parent / "templates" / "swagger"

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


def register(app: DocumentedApp) -> None:
    """Add ``openapi.json``, the page ``docs`` and what it needs."""
    pages = Blueprint("docs", __name__, url_prefix=PREFIX)

    @cache
    def document() -> str:
        return json.dumps(app.api_doc, ensure_ascii=False)

    def page() -> Response:
        return Response(_PAGE, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})

    pages.add_url_rule(
        "/openapi.json", "openapi", lambda: Response(document(), mimetype="application/json")
    )
    pages.add_url_rule("/docs", "page", page)
    pages.add_url_rule(
        "/docs/start.js", "start", lambda: Response(_START, mimetype="text/javascript")
    )
    pages.add_url_rule(
        "/docs/assets/<path:name>", "assets", lambda name: send_from_directory(_ASSETS, name)
    )
    app.register_blueprint(pages)
