"""Files that ship with virtmgr but are not Python: migrations, templates, playbooks.

In the repository they stand at its top level; the wheel carries them in ``virtmgr/_resources``.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def resource_path(name: str) -> Path:
    """The directory or file ``name``: ``migrations``, ``templates``, ``ansible``, ``alembic.ini``.

    :raises FileNotFoundError: the installation is broken.
    """
    for root in (_PACKAGE / "_resources", _PACKAGE.parent):
        path = root / name
        if path.exists():
            return path
    raise FileNotFoundError(f"virtmgr's own file {name!r} is missing; install virtmgr again")
