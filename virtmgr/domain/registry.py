"""References to images in registries, and the document of credentials for them. Pure."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, replace

from virtmgr.domain.errors import InvalidRequest

SCHEME = "docker://"
_DEFAULT_HOST = "docker.io"
_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*((:\d{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+)?)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MIRROR = re.compile(
    r"(?P<origin>[A-Za-z0-9.:-]+)=(?P<scheme>https?)://(?P<mirror>[A-Za-z0-9.-]+(:\d{1,5})?)/?"
)


@dataclass(frozen=True)
class Reference:
    """One image of a registry. A digest wins over a tag."""

    host: str
    repository: str
    tag: str = "latest"
    digest: str | None = None

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{SCHEME}{self.host}/{self.repository}{end}"


@dataclass(frozen=True)
class Mirror:
    """A registry that is asked before ``origin``; ``insecure``: by plain HTTP."""

    origin: str
    host: str
    insecure: bool = False

    @classmethod
    def parse_all(cls, text: str) -> tuple[Mirror, ...]:
        """``docker.io=https://mirror.example,docker.io=http://10.0.0.1:5000``; empty for none.

        :raises ValueError: it is none.
        """
        found = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = _MIRROR.fullmatch(part)
            if match is None:
                raise ValueError(f"{part!r} is no registry mirror; write ORIGIN=https://MIRROR")
            found.append(cls(match["origin"], match["mirror"], match["scheme"] == "http"))
        return tuple(found)


def parse_reference(source: str) -> Reference:
    """``docker://HOST/NAME:TAG`` or ``…@sha256:DIGEST``; without a host it is docker.io.

    :raises InvalidRequest: it is malformed.
    """
    match = _REFERENCE.fullmatch(source.removeprefix(SCHEME))
    host, _, repository = match["name"].partition("/") if match else ("", "", "")
    if match is not None and not (repository and re.search("[.:]|^localhost$", host)):
        host, repository = _DEFAULT_HOST, match["name"]
    if match is None or not re.fullmatch("[a-z0-9._/-]+", repository):
        raise InvalidRequest(
            f"{source!r} is no image reference",
            field="source",
            hint="Write docker://HOST/NAME:TAG or docker://HOST/NAME@sha256:DIGEST.",
        )
    if host == _DEFAULT_HOST and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(host, repository, match["tag"] or "latest", match["digest"])


def places(reference: Reference, mirrors: tuple[Mirror, ...]) -> list[tuple[Reference, bool]]:
    """Where to ask for it, in order, and whether by plain HTTP: its mirrors, then its origin."""
    found = [
        (replace(reference, host=mirror.host), mirror.insecure)
        for mirror in mirrors
        if mirror.origin == reference.host
    ]
    return [*found, (reference, False)]


def credentials_document(host: str, username: str, password: str) -> bytes:
    """A containers-auth.json(5) with what one registry wants, and no other is given."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    return json.dumps({"auths": {host: {"auth": auth}}}).encode()
