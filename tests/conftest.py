"""Fixtures for all tests."""

from __future__ import annotations

from tests.fixtures.postgresql import postgresql

__all__ = ["postgresql"]
