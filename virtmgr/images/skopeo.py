"""Copying images with skopeo(1) into a private OCI layout, which is then read with suspicion."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.domain.registry import Reference
from virtmgr.images.limits import ImportLimits
from virtmgr.images.oci import OCI_ARCHITECTURES
from virtmgr.images.task import Task, ToolLimits

_ANSWER = 120  # seconds
_CAUSES = (  # pattern of skopeo's message, code, hint
    (
        r"HTTP response to HTTPS|x509|certificate",
        "registry_not_trusted",
        "If you trust this registry all the same, allow it: --insecure-registry.",
    ),
    (
        r"connection refused|no such host|timeout|unreachable|no route to host|lookup ",
        "registry_unreachable",
        "Check its name and port, and that the control plane's machine reaches it.",
    ),
    (
        r"unauthorized|denied|authentication required",
        "registry_denied",
        "Check the image's name, and give --username and --password-file if it needs a log-in.",
    ),
    (
        r"manifest unknown|name unknown|not found",
        "registry_image_not_found",
        "Check the image's name and tag.",
    ),
)
_ARCHIVE_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}")


@dataclass(frozen=True)
class Access:
    """How a registry is reached; ``credentials`` is a containers-auth.json(5)."""

    insecure: bool = False
    credentials: Path | None = None

    def options(self, verify: str) -> list[str]:
        authfile = [f"--authfile={self.credentials}"] if self.credentials else []
        return [*authfile, *([f"--{verify}=false"] if self.insecure else [])]


def resolve(reference: Reference, access: Access, limits: ImportLimits, task: Task) -> Reference:
    """The same by the digest of what the registry has now: a manifest, or an index of several.

    :raises ImageError: the registry does not have it, or has something else.
    """
    task.phase(f"asking for {reference}")
    manifest = _skopeo(
        ["skopeo", "inspect", "--raw", *access.options("tls-verify"), str(reference)],
        str(reference),
        lambda command: task.run(
            command, limits=ToolLimits(file_size=limits.document), timeout=_ANSWER
        ),
    )
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    if reference.digest not in (None, digest):
        raise ImageError(f"{reference} is refused: it has digest {digest}", code="digest_mismatch")
    return replace(reference, digest=digest)


def archive_source(path: Path, reference: str | None) -> str:
    """The skopeo source for a docker-archive, of which ``reference`` names one image."""
    if reference is None:
        return f"docker-archive:{path}"
    if _ARCHIVE_REFERENCE.fullmatch(reference) is None:
        raise InvalidRequest(f"{reference!r} is no image reference", field="source")
    return f"docker-archive:{path}:{reference}"


def copy_to_layout(
    source: str,
    layout: Path,
    *,
    architecture: str,
    access: Access,
    limits: ImportLimits,
    task: Task,
) -> None:
    """Copy one image of ``source`` to a new OCI layout.

    :raises ImageError: skopeo cannot, or more came than is allowed.
    """
    temporary = layout.with_name("skopeo")
    for left in (layout, temporary):  # of a mirror that failed
        if left.exists():
            shutil.rmtree(left)
    temporary.mkdir()
    oci = OCI_ARCHITECTURES.get(architecture, architecture)
    task.phase(f"copying {source}" if source.startswith("docker://") else "converting the archive")

    def watch() -> None:
        size = _tree_size(layout) + _tree_size(temporary)
        if size > limits.file:
            raise ImageError(f"the image has more than {limits.file} bytes", code="image_too_large")
        task.advance(size - task.done)

    _skopeo(
        [
            "skopeo",
            "--insecure-policy",
            f"--override-arch={oci}",
            "--override-os=linux",
            f"--tmpdir={temporary}",
            "copy",
            "--quiet",
            *access.options("src-tls-verify"),
            source,
            f"oci:{layout}:image",
        ],
        source,
        lambda command: task.run(command, watch=watch),
    )


def _skopeo(command: list[str], source: str, run: Callable[[list[str]], bytes]) -> bytes:
    try:
        return run(command)
    except ImageError as error:
        raise explained(source, error) from error


def explained(source: str, error: ImageError) -> ImageError:
    """The error of a copy in words of ours, with what to do; what skopeo does not say stays. Pure.

    skopeo writes lines of logfmt: ``time="…" level=fatal msg="…"``.
    """
    said = re.findall(r'level=fatal msg="((?:[^"\\]|\\.)*)"', error.message)
    if not said:
        return error
    why = said[-1].replace(r"\"", '"')
    for pattern, code, hint in _CAUSES:
        if re.search(pattern, why):
            return ImageError(f"cannot copy {source}: {why}", code=code, hint=hint)
    return ImageError(f"cannot copy {source}: {why}", code=error.code, hint=error.hint)


def _tree_size(directory: Path) -> int:
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118
            except FileNotFoundError:
                continue  # renamed by skopeo meanwhile
    return total
