"""Copying images with skopeo(1) into a private OCI layout, which is then read with suspicion."""

from __future__ import annotations

import os
import re
from pathlib import Path

from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.images.limits import ImportLimits
from virtmgr.images.oci import OCI_ARCHITECTURES
from virtmgr.images.task import Task

_REGISTRY_REFERENCE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(:\d{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
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
        "Check the image's name; images that need a log-in can be imported as files "
        "(skopeo copy … oci-archive:FILE).",
    ),
    (
        r"manifest unknown|name unknown|not found",
        "registry_image_not_found",
        "Check the image's name and tag.",
    ),
)
_ARCHIVE_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}")


def registry_source(source: str) -> str:
    """``source`` if it is a well-formed ``docker://`` reference.

    :raises InvalidRequest: otherwise.
    """
    reference = source.removeprefix("docker://")
    if _REGISTRY_REFERENCE.fullmatch(reference) is None:
        raise InvalidRequest(
            f"{source!r} is no image reference",
            field="source",
            hint="Write docker://HOST/NAME:TAG or docker://HOST/NAME@sha256:DIGEST.",
        )
    return f"docker://{reference}"


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
    insecure: bool,
    limits: ImportLimits,
    task: Task,
) -> None:
    """Copy one image of ``source`` to a new OCI layout.

    :raises ImageError: skopeo cannot, or more came than is allowed.
    """
    temporary = layout.with_name("skopeo")
    temporary.mkdir()
    oci = OCI_ARCHITECTURES.get(architecture, architecture)
    task.phase(f"copying {source}" if source.startswith("docker://") else "converting the archive")

    def watch() -> None:
        size = _tree_size(layout) + _tree_size(temporary)
        if size > limits.file:
            raise ImageError(f"the image has more than {limits.file} bytes", code="image_too_large")
        task.advance(size - task.done)

    command = [
        "skopeo",
        "--insecure-policy",
        f"--override-arch={oci}",
        "--override-os=linux",
        f"--tmpdir={temporary}",
        "copy",
        "--quiet",
        *(["--src-tls-verify=false"] if insecure else []),
        source,
        f"oci:{layout}:image",
    ]
    try:
        task.run(command, watch=watch)
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
