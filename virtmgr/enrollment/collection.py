"""The Ansible collection virtmgr.core, which virtmgr carries, put where Ansible finds it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from virtmgr.config.resources import resource_path

_PLACE = Path("ansible_collections/virtmgr/core")


def install_collection(directory: Path) -> Path:
    """Make or replace the collection below ``directory``, one of Ansible's collections paths.

    :return: where it is.
    :raises OSError: it cannot be written.
    """
    target = directory / _PLACE
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".core-", dir=target.parent) as work:
        made = Path(work) / "new"
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(resource_path("ansible"), made, ignore=ignored)
        if target.exists():
            target.rename(Path(work) / "old")
        made.rename(target)
    return target
