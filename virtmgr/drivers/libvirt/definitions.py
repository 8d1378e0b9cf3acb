"""Defines domains, and not anew what libvirt has already: checking a definition takes it long."""

from __future__ import annotations

import hashlib
from typing import Any

import libvirt

_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE


class Definitions:
    """What was defined by this process."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}  # workload id → fingerprint

    def define(self, connection: Any, domain: Any, workload_id: str, text: str) -> Any:
        """The domain of ``workload_id``, defined as ``text``; ``domain``: as it is, or None."""
        if domain is not None and self._known.get(workload_id) == _fingerprint(text, domain):
            return domain
        defined = connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        self._known[workload_id] = _fingerprint(text, defined)
        return defined

    def forget(self, workload_id: str) -> None:
        self._known.pop(workload_id, None)


def _fingerprint(text: str, domain: Any) -> str:
    """Of what was asked for, and of what libvirt made of it: somebody may have edited that."""
    return hashlib.sha256(f"{text}\0{domain.XMLDesc(_INACTIVE)}".encode()).hexdigest()
