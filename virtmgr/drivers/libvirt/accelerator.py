"""Whether KVM really works: a device node proves nothing, a guest that ran does.

A boot sector that enters long mode and writes one byte is run under KVM and, to compare, under
TCG. KVM is believed when the guest finishes, and no slower than the larger of one second and
twice TCG's time: there are hosts whose ``/dev/kvm`` opens and makes CPUs, and then hangs or crawls.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from virtmgr.domain.values import Value
from virtmgr.drivers.libvirt.layout import replacing

DEFAULT_EMULATOR = "qemu-system-x86_64"
_KVM_TIMEOUT = 5.0
_TCG_TIMEOUT = 20.0
_SUCCESS = 33  # isa-debug-exit: (0x10 << 1) | 1

# Real mode: build page tables for 2 MiB at 0x1000, load a GDT with one 64-bit code segment, set
# CR4.PAE, CR3, EFER.LME and CR0.PG|PE, jump to 64-bit code; there write 'K' to port 0xe9 and 0x10
# to port 0xf4 (isa-debug-exit), then halt. Intel SDM vol. 3, section 9.8.5.
_CODE = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cbf0010b90030f3aa66c70600100320000066c706002003300000"
    "66c7060030830000000f0116887c66b8a00000000f22e066b8001000000f22d866b9800000c0"
    "0f32660d000100000f300f20c0660d010000800f22c0ea677c0800b04be6e9b010e6f4f4ebfd"
    "660f1f440000000000000000000000000000009a20000f00787c0000"
)
_BOOT_SECTOR = _CODE.ljust(510, b"\0") + b"\x55\xaa"


class Accelerator(Value):
    """What VMs run under: ``kvm``, ``tcg`` or ``none``; ``reason`` says why it is not KVM."""

    name: str
    reason: str = ""


class _Verdict(Value):
    fingerprint: str
    accelerator: Accelerator


@dataclass(frozen=True)
class _Trial:
    ok: bool
    seconds: float
    why: str


def probe_accelerator(cache: Path, emulator: str = DEFAULT_EMULATOR) -> Accelerator:
    """What VMs run under on this host, tried out.

    The verdict is kept in the file ``cache`` for as long as kernel, QEMU and the device node stay
    the same; otherwise it costs two short runs of QEMU.

    :raises OSError: the cache cannot be written.
    """
    version = _version(emulator)
    if version is None:
        return Accelerator(name="none", reason=f"{emulator} is not installed or does not run")
    fingerprint = "|".join((platform.release(), platform.version(), version, _device()))
    known = _load(cache)
    if known is not None and known.fingerprint == fingerprint:
        return known.accelerator
    accelerator = _try(emulator)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cache) as partial:
        partial.write_text(
            _Verdict(fingerprint=fingerprint, accelerator=accelerator).model_dump_json()
        )
    return accelerator


def _version(emulator: str) -> str | None:
    try:
        shown = subprocess.run(
            [emulator, "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout.splitlines()[0] if shown.stdout else None


def _device() -> str:
    try:
        status = Path("/dev/kvm").stat()
    except OSError as error:
        return f"absent:{error.errno}"
    return f"{status.st_mode:o}:{status.st_rdev}"


def _load(cache: Path) -> _Verdict | None:
    try:
        return _Verdict.model_validate_json(cache.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _try(emulator: str) -> Accelerator:
    if _device().startswith("absent"):
        return Accelerator(name="tcg", reason="there is no /dev/kvm on this host")
    tcg = _boot(emulator, "tcg", "max", _TCG_TIMEOUT)
    kvm = _boot(emulator, "kvm", "host", _KVM_TIMEOUT)
    return judge(kvm.ok, kvm.seconds, kvm.why, tcg.seconds)


def judge(ok: bool, seconds: float, why: str, tcg_seconds: float) -> Accelerator:
    """The verdict on a trial under KVM, next to TCG's time for the same guest."""
    if not ok:
        return Accelerator(name="tcg", reason=f"a probe guest did not run under KVM: {why}")
    limit = max(1.0, 2 * tcg_seconds)
    if seconds > limit:
        return Accelerator(
            name="tcg",
            reason=f"a probe guest took {seconds:.1f} s under KVM, more than {limit:.1f} s",
        )
    return Accelerator(name="kvm")


def _boot(emulator: str, accelerator: str, cpu: str, timeout: float) -> _Trial:
    with tempfile.TemporaryDirectory(prefix="virtmgr-probe-") as directory:
        disk, out = Path(directory, "disk"), Path(directory, "out")
        disk.write_bytes(_BOOT_SECTOR)
        command = [emulator, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        command += ["-machine", f"pc,accel={accelerator}", "-cpu", cpu, "-m", "16"]
        command += ["-drive", f"file={disk},format=raw,if=ide,snapshot=on"]
        command += ["-debugcon", f"file:{out}"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        began = time.monotonic()
        try:
            ended = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return _Trial(False, timeout, f"it did not finish within {timeout:.0f} s")
        seconds = time.monotonic() - began
        wrote = out.read_bytes() if out.exists() else b""
        if wrote.endswith(b"K") and ended.returncode == _SUCCESS:
            return _Trial(True, seconds, "")
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        return _Trial(False, seconds, said[-1] if said else f"QEMU ended with {ended.returncode}")
