"""What is offered to whom. The API decides; this only leaves out what it would refuse. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_OPERATORS: Final = ("operator", "admin")


def operates(who: Mapping[str, Any] | None) -> bool:
    """Whether somebody (as whoami tells) may change what belongs to no project: hosts, clusters."""
    if who is None or who["token_project"] is not None:
        return False
    if who["token_role"] is not None and who["token_role"] not in _OPERATORS:
        return False
    return any(held["role"] in _OPERATORS and held["project"] is None for held in who["roles"])
