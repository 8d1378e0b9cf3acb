"""Fixtures and options for all tests."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings

from tests.fixtures.postgresql import postgresql

__all__ = ["postgresql"]

# A loaded machine is slow, and says nothing about the code.
settings.register_profile("virtmgr", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("virtmgr")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("virtmgr")
    group.addoption(
        "--kills", type=int, default=50, help="random kills in tests/system/test_storm.py"
    )
    group.addoption(
        "--faults", type=int, default=20, help="random faults in tests/multihost/test_faults.py"
    )
    group.addoption(
        "--seed", type=int, default=random.randrange(10**6), help="of those kills, to repeat a run"
    )
