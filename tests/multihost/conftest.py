"""Tests on several hosts, of two Debian releases (docs/lab.md)."""

from __future__ import annotations

from tests.fixtures.lab import lab, three, whole_lab

__all__ = ["lab", "three", "whole_lab"]
