"""Puts the files that are not Python into the wheel; everything else is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RESOURCES = ("migrations", "templates", "ansible", "alembic.ini", "requirements-host.lock")


class BuildWithResources(build_py):
    """Copies them to ``virtmgr/_resources``, where ``virtmgr.config.resources`` looks."""

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):
            return
        root = Path(__file__).resolve().parent
        target = Path(self.build_lib) / "virtmgr" / "_resources"
        for name in RESOURCES:
            source = root / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(source, target / name, dirs_exist_ok=True, ignore=ignore)
            elif source.exists():
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)


setup(cmdclass={"build_py": BuildWithResources})
