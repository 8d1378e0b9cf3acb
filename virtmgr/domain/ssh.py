"""Keys of ssh: a server's fingerprint, and private keys that cannot be used. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from virtmgr.domain.errors import Conflict, InvalidRequest

_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
"""What a server's key may be, the one to prefer first."""

FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}"
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----\s(.*?)-----END", re.DOTALL)
_OPENSSH_MAGIC = b"openssh-key-v1\0"


@dataclass(frozen=True)
class HostKey:
    """The public key of an ssh server."""

    type: str
    blob: str  # base64, as in known_hosts

    @property
    def fingerprint(self) -> str:
        """As ssh shows it: SHA256: and base64 without padding."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def known_hosts_line(self, address: str, port: int) -> str:
        """As sshd(8) wants it in a known_hosts file."""
        where = address if port == 22 else f"[{address}]:{port}"
        return f"{where} {self.type} {self.blob}\n"


def parse_keys(text: str) -> tuple[HostKey, ...]:
    """The keys in what ssh-keyscan printed, the one to prefer first. Others' types are left out."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not line.startswith("#") and words[1] in _TYPES:
            key = HostKey(words[1], words[2])
            if _is_blob(key.blob):
                found.append(key)
    return tuple(sorted(found, key=lambda key: _TYPES.index(key.type)))


def fingerprint_of(text: str) -> str:
    """The fingerprint that ``text`` is, or that of the public key that it is.

    :param text: ``SHA256:…``, or ``ssh-ed25519 AAAA…`` as in a server's .pub file.
    :raises InvalidRequest: it is neither.
    """
    text = text.strip()
    if re.fullmatch(FINGERPRINT, text):
        return text
    words = text.split()
    if len(words) >= 2 and words[0] in _TYPES and _is_blob(words[1]):
        return HostKey(words[0], words[1]).fingerprint
    raise InvalidRequest(
        f"{text[:80]!r} is neither a fingerprint nor a public key of an ssh server",
        code="bad_host_key",
        hint="write SHA256:… as 'virtmgr host scan ADDRESS' shows it, or the line of the server's "
        "/etc/ssh/ssh_host_ed25519_key.pub",
        field="host_key",
    )


def trusted_key(keys: Iterable[HostKey], fingerprint: str, address: str) -> HostKey:
    """The key among those that a server shows which is the one that was agreed on.

    :raises Conflict: it shows others only.
    """
    shown = list(keys)
    for key in shown:
        if key.fingerprint == fingerprint:
            return key
    raise Conflict(
        f"the ssh server at {address} shows {_listed(shown)}, not the key {fingerprint} that was "
        "agreed on: it was installed anew, or somebody else answers at this address",
        code="host_key_changed",
        hint="compare with 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' on the machine's own "
        "console; if that is right, give it with --accept-new-host-key",
        detail={"shown": [key.fingerprint for key in shown], "expected": fingerprint},
    )


def check_private_key(text: str) -> str:
    """``text`` as ssh takes it, if it is a private key that needs no passphrase.

    :raises InvalidRequest: otherwise; the key is not in the message.
    """
    found = _PEM.search(text)
    if found is None:
        raise InvalidRequest(
            "this is no private key",
            code="bad_private_key",
            hint="give the file without .pub, in OpenSSH's or PEM format",
            field="ssh.private_key",
        )
    if _is_encrypted(found[1], found[2]):
        raise InvalidRequest(
            "this private key is protected by a passphrase, and nobody is there to type it",
            code="encrypted_private_key",
            hint="make one for this purpose without a passphrase, or take it off a copy with "
            "'ssh-keygen -p -f COPY'",
            field="ssh.private_key",
        )
    return text.replace("\r\n", "\n").strip() + "\n"


def _is_encrypted(kind: str, body: str) -> bool:
    if "ENCRYPTED" in kind or "ENCRYPTED" in body:
        return True
    try:
        content = base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error:
        return False
    # https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key: the cipher comes first
    return content.startswith(_OPENSSH_MAGIC) and content[19:23] != b"none"


def _is_blob(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) > 16
    except (binascii.Error, ValueError):
        return False


def _listed(keys: Iterable[HostKey]) -> str:
    return ", ".join(f"{key.fingerprint} ({key.type})" for key in keys) or "no key"
