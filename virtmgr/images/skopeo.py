"""Copying images with skopeo(1) into a private OCI layout, which is then read with suspicion."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.domain.registry import Reference
from virtmgr.images.limits import ImportLimits
from virtmgr.images.oci import OCI_ARCHITECTURES
from virtmgr.images.task import Task, ToolLimits

_ANSWER = 120  # seconds
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
    manifest = task.run(
        ["skopeo", "inspect", "--raw", *access.options("tls-verify"), str(reference)],
        limits=ToolLimits(file_size=limits.document),
        timeout=_ANSWER,
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

    task.run(
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
        watch=watch,
    )


def _tree_size(directory: Path) -> int:
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118
            except FileNotFoundError:
                continue  # renamed by skopeo meanwhile
    return total
