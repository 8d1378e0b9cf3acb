"""What the container driver's tests share: a busybox image, plain veths, workloads as data."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from typing import Any

from virtmgr.domain.ids import new_id
from virtmgr.domain.image import ContainerConfig, ImageManifest, ImageType
from virtmgr.domain.network import mac_address, port_name
from virtmgr.domain.sync import DesiredImage, DesiredNic, DesiredVolume, DesiredWorkload
from virtmgr.domain.workload import Init, Kind, PowerState, WorkloadSpec
from virtmgr.drivers.oci.driver import OciDriver
from virtmgr.ports.driver import ExecRequest, Inspection, LocalImage, Provision

RUNTIMES = ("crun", "runc")
ID_BASE = 10_000_000
_APPLETS = (
    "sh ash cat echo ls id ip ping sleep true false kill ps mount umount stat touch mkdir rm tee "
    "init hostname env head dd tail seq stty unshare test wc nc chmod chown ln grep sync trap"
)


def make_busybox(directory: Path) -> Path:
    """An unpacked image layer with nothing but busybox, and two users."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "home/web", "run"):
        (directory / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    for applet in _APPLETS.split():
        place = "sbin" if applet == "init" else "bin"
        (directory / place / applet).symlink_to("/bin/busybox")
    (directory / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n"
    )
    (directory / "etc/group").write_text("root:x:0:\nweb:x:1000:\nlog:x:200:web\n")
    (directory / "etc/inittab").write_text("::sysinit:/bin/echo booted\n::respawn:-/bin/sh\n")
    (directory / "tmp").chmod(0o1777)
    return directory


class VethConnector:
    """A plain veth for each NIC, without a bridge; the names of those that are connected."""

    def __init__(self) -> None:
        self.connected: set[str] = set()

    def connect(self, nic: DesiredNic, pid: int) -> None:
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        name, device = port_name(nic.id), f"eth{nic.index}"
        peer = ["peer", "name", device, "address", nic.mac, "netns", str(pid)]
        commands = [["ip", "link", "add", name, "type", "veth", *peer]]
        commands += [["ip", "link", "set", name, "up"]]
        commands += [[*inside, "ip", "link", "set", device, "up"]]
        if nic.ipv4:
            commands += [[*inside, "ip", "addr", "add", nic.ipv4, "dev", device]]
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        self.connected.add(nic.id)

    def disconnect(self, nic_id: str) -> None:
        subprocess.run(["ip", "link", "del", port_name(nic_id)], check=False, capture_output=True)
        self.connected.discard(nic_id)


class Changes:
    """The workload ids that a driver said have changed."""

    def __init__(self) -> None:
        self._seen: list[str] = []
        self._condition = Condition()

    def __call__(self, workload_id: str) -> None:
        with self._condition:
            self._seen.append(workload_id)
            self._condition.notify_all()

    def wait_for(self, workload_id: str) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: workload_id in self._seen, timeout=30)


@dataclass
class OciKit:
    """A driver over directories of its own, and what to run on it."""

    directory: Path
    layer: Path
    network: VethConnector = field(default_factory=VethConnector)
    changes: Changes = field(default_factory=Changes)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.driver = self.new_driver()

    def new_driver(self) -> OciDriver:
        """Another driver over the same directories, as after a restart of the agent."""
        driver = OciDriver(
            state_directory=self.directory / "state",
            run_directory=self.directory / "run",
            network=self.network,
            cgroup_parent="virtmgr-test-" + self.directory.name,
            **self.options,
        )
        driver.recover(self.changes)
        return driver

    def restart_agent(self) -> OciDriver:
        self.driver.close()
        self.driver = self.new_driver()
        return self.driver

    def provision(self, **volumes: Path) -> Provision:
        return Provision(image=LocalImage(layers=(self.layer,)), volumes=volumes, id_base=ID_BASE)

    def volume_file(self, size: int = 32 * 1024**2) -> Path:
        path = self.directory / f"volume-{new_id()}.raw"
        with path.open("wb") as file:
            file.truncate(size)
        return path

    def run(self, workload_id: str, *command: str, **options: Any) -> tuple[int, bytes, bytes]:
        """Exit code, output and complaints of a command inside."""
        session = self.driver.exec(workload_id, ExecRequest(command=command, **options))
        with session.stdout:
            output = session.stdout.read()
        said = b""
        if session.stderr is not None:
            with session.stderr:
                said = session.stderr.read()
        return session.wait(), output, said


def nic(index: int = 0, ipv4: str | None = "10.213.7.2/24", **more: Any) -> DesiredNic:
    identity = new_id()
    return DesiredNic(
        id=identity,
        index=index,
        network_id=new_id(),
        mac=mac_address(identity),
        ipv4=ipv4,
        dns=("10.213.7.1",),
        dns_domain="default.virt",
        **more,
    )


def workload(
    *command: str,
    init: Init = Init.APP,
    config: ContainerConfig | None = None,
    nics: tuple[DesiredNic, ...] = (),
    volumes: tuple[DesiredVolume, ...] = (),
    name: str = "web1",
    **spec: Any,
) -> DesiredWorkload:
    """A workload of busybox; ``command`` empty: what the image says."""
    if command:
        spec["command"] = command
    spec.setdefault("root_disk", {"size": "64MiB"})
    spec.setdefault("resources", {"memory": "64MiB", "vcpus": 0.5, "pids": 64})
    manifest = ImageManifest(
        type=ImageType.CONTAINER,
        config=config or ContainerConfig(init=init, command=("/bin/sleep", "1000")),
    )
    return DesiredWorkload(
        id=new_id(),
        project="default",
        name=name,
        kind=Kind.CONTAINER,
        init=init,
        generation=1,
        revision=1,
        spec=WorkloadSpec(name=name, kind=Kind.CONTAINER, init=init, image="busybox", **spec),
        state=PowerState.RUNNING,
        image=DesiredImage(id=new_id(), name="busybox", manifest=manifest),
        nics=nics,
        volumes=volumes,
    )


def respec(desired: DesiredWorkload, **changes: Any) -> DesiredWorkload:
    """The same workload with other fields in its spec."""
    spec = WorkloadSpec.model_validate({**desired.spec.model_dump(exclude_unset=True), **changes})
    return desired.model_copy(update={"spec": spec, "generation": desired.generation + 1})


def started(kit: OciKit, desired: DesiredWorkload, provision: Provision | None = None) -> str:
    kit.driver.prepare(desired, provision or kit.provision())
    kit.driver.start(desired, provision or kit.provision())
    return desired.id


def ended(kit: OciKit, workload_id: str) -> Inspection:
    assert kit.changes.wait_for(workload_id)
    return kit.driver.inspect(workload_id)


def shell(kit: OciKit, workload_id: str, script: str) -> str:
    code, output, said = kit.run(workload_id, "/bin/sh", "-c", script)
    assert code == 0, (output, said)
    return output.decode().strip()


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def oci_kit(**options: Any) -> Iterator[OciKit]:
    """A kit whose every trace is gone afterwards."""
    # Not pytest's tmp_path: containers must be able to search every directory above their root.
    directory = Path(tempfile.mkdtemp(prefix="vmt-", dir="/var/tmp"))
    directory.chmod(0o711)
    try:
        kit = OciKit(directory, make_busybox(directory / "layer"), options=options)
        try:
            yield kit
        finally:
            kit.driver.remove_all()
            kit.driver.close()
            for identity in tuple(kit.network.connected):
                kit.network.disconnect(identity)
    finally:
        shutil.rmtree(directory)


KitFactory = Callable[[], OciKit]
