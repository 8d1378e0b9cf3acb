"""Fixtures and options for all tests."""

from __future__ import annotations

import random

import pytest

from tests.fixtures.postgresql import postgresql

__all__ = ["postgresql"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("virtmgr")
    group.addoption(
        "--kills", type=int, default=50, help="random kills in tests/system/test_storm.py"
    )
    group.addoption(
        "--seed", type=int, default=random.randrange(10**6), help="of those kills, to repeat a run"
    )
