"""A guest that is not Linux: a GRUB rescue CD that says GRUB-UP on the serial port and waits."""

from __future__ import annotations

import subprocess
from pathlib import Path

UP = b"GRUB-UP"
_CONFIGURATION = """
serial --unit=0 --speed=115200
terminal_input {terminals}
terminal_output {terminals}
echo GRUB-UP
"""


def build(target: Path, *, terminals: str = "serial") -> Path:
    """Make the ISO image at ``target`` (grub-mkrescue of grub-common, grub-pc-bin, xorriso).

    :param terminals: where it speaks and listens: ``console`` is display and keyboard.
    """
    tree = target.with_suffix(".tree")
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "boot/grub/grub.cfg").write_text(_CONFIGURATION.format(terminals=terminals))
    subprocess.run(["grub-mkrescue", "-o", str(target), str(tree)], check=True, capture_output=True)
    target.chmod(0o644)
    return target
