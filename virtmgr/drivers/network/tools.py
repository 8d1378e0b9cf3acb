"""Finds and runs the two programs that the network needs, ``nft`` and ``dnsmasq``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from virtmgr.domain.errors import NetworkError

_PACKAGES = {"nft": "nftables", "dnsmasq": "dnsmasq-base"}
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_PATIENCE = 30.0  # seconds


def find_tool(name: str) -> str:
    """The absolute path of ``name``, also where PATH lacks the sbin directories.

    :raises NetworkError: it is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_PATH)))
    if found is None:
        raise NetworkError(
            f"setting up this host's network needs {name}, which is not installed",
            code="program_missing",
            hint=f"apt-get install {_PACKAGES[name]}",
        )
    return found


def run_tool(arguments: Sequence[str], attempt: str, *, text: str = "") -> str:
    """Run a command with ``text`` as its input and return what it prints.

    :param attempt: what is being done, for the error: "applying the firewall table virtmgr".
    :raises NetworkError: it failed; the message carries what it said.
    """
    try:
        done = subprocess.run(
            arguments, input=text, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{attempt} failed: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise NetworkError(
            f"{attempt} failed: {said[:2000]}", hint="see the agent's log on the host"
        )
    return done.stdout
