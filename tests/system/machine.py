"""What is on this host: to compare before with after, and desired with left over."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.fixtures.processes import Process, processes

ROOT = Path(__file__).resolve().parents[2]
AGENT_DATA = Path("/var/lib/virtmgr-agent")
AGENT_RUN = Path("/run/virtmgr-agent")
_SHARED_TREES = ("/etc", "/run", "/var/lib", "/var/log")
# What other labs keep on the machine below this one shows through.
_NOT_OURS = ("/run/lab", "/run/libvirt", "/var/lib/libvirt/qemu/", "/var/lib/virtmgr-lab")


def guests() -> set[Process]:
    """Every QEMU, every conmon and the first process of every container."""
    conmons = processes("/usr/bin/conmon")
    parents = {each.pid for each in conmons}
    first = {each for each in processes() if each.parent in parents}
    return first | set(conmons) | set(processes("qemu-system", "guest=virtmgr-"))


def start(name: str, *command: str) -> None:
    """Start one of virtmgr's processes as ``make up`` does."""
    _daemons("start", name, str(ROOT / ".venv/bin/virtmgr"), *command)


def start_libvirt() -> None:
    _daemons("start_libvirt")


def _daemons(*words: str) -> None:
    """Call a function of ``scripts/daemons.sh``."""
    script = 'source "${0%/*}/common.sh"; source "$ROOT/scripts/daemons.sh"; "$@"'
    subprocess.run(["bash", "-c", script, str(ROOT / "scripts/up"), *words], check=True)


def start_agent() -> None:
    start("agent", "agent", "--server", "https://127.0.0.1:7444")


def start_serve() -> None:
    start("serve", "serve")


def logs() -> str:
    """The end of each log of virtmgr's processes and libvirt's, for who reads a failure."""
    return "\n".join(
        f"--- {log.name}\n{log.read_text()[-20000:]}"
        for log in sorted(Path("/var/log/virtmgr").glob("*.log"))
    )


def traces() -> dict[str, set[str]]:
    """Everything that virtmgr could leave on a host, by kind of thing."""
    return {
        "processes": {each.command for each in processes()},
        "mounts": {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()},
        "links": {path.name for path in Path("/sys/class/net").iterdir()},
        "nft tables": set(_output("nft", "list", "tables").splitlines()),
        "network namespaces": set(_output("ip", "netns", "list").splitlines()),
        "cgroups": {str(path) for path in Path("/sys/fs/cgroup").rglob("*") if path.is_dir()},
        "loop devices": set(loop_devices()),
        "files": files(),
    }


def files() -> set[str]:
    """Every file of the trees that virtmgr might write to."""
    return {
        str(path)
        for tree in _SHARED_TREES
        for path in Path(tree).rglob("*")
        if not str(path).startswith(_NOT_OURS)
    }


def loop_devices() -> list[str]:
    """Those whose file is on this host's data directory; loop devices know no namespaces."""
    if not AGENT_DATA.exists():
        return []
    own = AGENT_DATA.stat().st_dev
    listed = _output("losetup", "--json", "--list", "--output", "NAME,BACK-FILE,BACK-MAJ:MIN")
    devices = json.loads(listed or '{"loopdevices": []}')["loopdevices"]
    return [
        f"{each['name']} {each['back-file']}"
        for each in devices
        if each["back-maj:min"].strip() == f"{os.major(own)}:{os.minor(own)}"
    ]


def mentions(workload_id: str) -> set[str]:
    """Where on this host a workload's id is still to be found."""
    found: set[str] = set()
    for kind, names in traces().items():
        found |= {f"{kind}: {name}" for name in names if workload_id in name}
    return found | {workload_id}.intersection(domains())


def is_populated(workload_id: str) -> bool:
    """Whether a container's control group has processes."""
    groups = Path("/sys/fs/cgroup").glob(f"**/virtmgr/{workload_id}/cgroup.procs")
    return any(group.read_text() for group in groups)


def domains() -> set[str]:
    """The ids of libvirt's domains, running or not."""
    return set(_output("virsh", "list", "--all", "--uuid").split())


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
