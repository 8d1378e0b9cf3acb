"""Finding and running the host's own programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from virtmgr.domain.errors import NetworkError

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_SECONDS = 30


def find(program: str, package: str) -> str:
    """The program's path.

    :raises NetworkError: it is not installed; the hint names the Debian package.
    """
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise NetworkError(
            f"this host has no {program}",
            code="program_missing",
            hint=f"install the package {package}",
        )
    return path


def apply(commands: dict[str, Any]) -> None:
    """Hand one transaction to nftables: all of it takes effect, or nothing.

    :raises NetworkError: the kernel or nft refuses it.
    """
    _run([find("nft", "nftables"), "-j", "-f", "-"], json.dumps(commands).encode(), "nftables")


def tables(table: str) -> bool:
    """Whether both of virtmgr's tables are there."""
    nft = find("nft", "nftables")
    return all(
        subprocess.run(
            [nft, "list", "table", family, table],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        ).returncode
        == 0
        for family in ("inet", "bridge")
    )


def start_dnsmasq(configuration: str, bridge: str) -> None:
    """Start dnsmasq; it goes into the background once it is ready.

    :raises NetworkError: it does not start.
    """
    program = find("dnsmasq", "dnsmasq-base")
    _run([program, f"--conf-file={configuration}"], b"", f"dnsmasq on {bridge}")


def _run(command: Sequence[str], text: bytes, what: str) -> None:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NetworkError(f"setting up {what} took longer than {_SECONDS} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise NetworkError(
            f"setting up {what} failed: {said}",
            hint="does the kernel have what it needs? see 'virtmgr host show'",
        )
