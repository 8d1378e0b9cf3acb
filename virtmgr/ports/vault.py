"""What turns secrets into text that may lie in the database."""

from __future__ import annotations

from typing import Protocol


class Vault(Protocol):
    """Encrypts with a key that only the control plane's own user can read."""

    def seal(self, secret: bytes, purpose: str) -> str:
        """``secret``, to be opened for the same ``purpose`` only."""
        ...

    def open(self, sealed: str, purpose: str) -> bytes:
        """What was sealed.

        :raises Unavailable: with another key or for another purpose, or it was changed.
        """
        ...
