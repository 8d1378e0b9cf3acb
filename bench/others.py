"""Other products that start containers, where they are installed and run on this machine."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

_IMAGE, _NAME = "localhost/virtmgr-bench", "virtmgr-bench"


@dataclass(frozen=True)
class OtherTool:
    """podman or docker: both take the same words."""

    name: str

    def start(self) -> None:
        self._run("run", "--detach", "--name", _NAME, _IMAGE, "/bin/busybox", "sleep", "100000")

    def end(self) -> None:
        self._run("rm", "--force", "--time", "0", _NAME)

    def prepare(self, archive: Path) -> bool:
        """Take in the image and start once; False where it does not run here."""
        try:
            self._run("import", str(archive), _IMAGE)
            self.start()
            self.end()
        except subprocess.CalledProcessError:
            return False
        return True

    def _run(self, *arguments: str) -> None:
        subprocess.run([self.name, *arguments], check=True, capture_output=True)


def installed_tools(directory: Path) -> list[OtherTool]:
    """Those that start a busybox here."""
    archive = directory / "busybox.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
    found = [OtherTool(name) for name in ("podman", "docker") if shutil.which(name)]
    return [tool for tool in found if tool.prepare(archive)]
