"""What a viewer has chosen, in cookies of this browser."""

from __future__ import annotations

from typing import Final

from werkzeug.wrappers import Response

PROJECT: Final = "virtmgr-project"
THEME: Final = "virtmgr-theme"  # console.js writes it too
_YEAR: Final = 365 * 86400  # seconds


def keep(response: Response, name: str, value: str, *, scripts: bool = False) -> None:
    """Let the browser keep a choice; an empty one is forgotten.

    :param scripts: whether scripts of a page may read it.
    """
    response.set_cookie(
        name,
        value,
        max_age=_YEAR if value else 0,
        secure=True,
        httponly=not scripts,
        samesite="Strict",
    )
