"""Secrets in the database, encrypted with a key that lies beside that of the private CA.

AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces. The purpose is authenticated with it, so
that what was sealed for one host opens for no other.
"""

from __future__ import annotations

import base64
import binascii
import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from virtmgr.domain.errors import Unavailable

_NONCE = 12  # bytes


class KeyFileVault:
    """Implements ``ports.vault.Vault``. The key is made when it is first needed, once for all
    processes.

    :param path: of the key, readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def seal(self, secret: bytes, purpose: str) -> str:
        nonce = os.urandom(_NONCE)
        sealed = AESGCM(self._key()).encrypt(nonce, secret, purpose.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, purpose: str) -> bytes:
        try:
            content = base64.b64decode(sealed, validate=True)
            return AESGCM(self._key()).decrypt(content[:_NONCE], content[_NONCE:], purpose.encode())
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise Unavailable(
                f"open the credentials of {purpose}: they were sealed with another key than "
                f"{self._path}",
                code="credentials_unreadable",
                hint="give the credentials again",
            ) from error

    def _key(self) -> bytes:
        with suppress(FileNotFoundError):
            return self._path.read_bytes()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = self._path.with_name(f".{self._path.name}.{os.urandom(8).hex()}")
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(AESGCM.generate_key(256))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was faster: its key is the one
                os.link(scratch, self._path)
        finally:
            scratch.unlink(missing_ok=True)
        return self._path.read_bytes()
