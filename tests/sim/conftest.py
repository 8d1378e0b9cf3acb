"""The control plane's parts, as the tests of the API have them."""

from __future__ import annotations

from tests.api.conftest import api, app, clock, contract, empty_database, services

__all__ = ["api", "app", "clock", "contract", "empty_database", "services"]
