"""The floor: the same container or VM started by the bare tools, everything prepared beforehand.

Bundle and domain are those that virtmgr itself has made, so both sides start the same thing.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from bench.rest import Rest
from virtmgr.domain.ids import new_id

_RUN = Path("/run/virtmgr-agent/containers")
_BRIDGE, _PORT, _ADDRESS = "floor0", "floor1", "10.214.0.2/24"


@dataclass(frozen=True)
class BareContainer:
    """A bundle for crun, and the veth that it gets on a bridge."""

    bundle: Path
    pid_file: Path

    @classmethod
    @contextmanager
    def prepared(cls, rest: Rest, spec: dict[str, object]) -> Iterator[BareContainer]:
        rest.create(spec)
        name = str(spec["name"])
        rest.stop(name)  # its bundle and its mounted root stay
        _ip(f"link add {_BRIDGE} type bridge", f"link set {_BRIDGE} up")
        with tempfile.TemporaryDirectory() as directory:
            yield cls(_RUN / rest.show(name)["id"], Path(directory) / "pid")
        _ip(f"link del {_BRIDGE}")
        rest.delete(name)

    def start(self) -> None:
        _run("crun", "create", "--bundle", self.bundle, "--pid-file", self.pid_file, "floor")
        pid = self.pid_file.read_text()
        _ip(
            f"link add {_PORT} type veth peer name eth0 netns {pid}",
            f"link set {_PORT} master {_BRIDGE} up",
        )
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net")
        _ip(f"addr add {_ADDRESS} dev eth0", "link set eth0 up", prefix=inside)
        _run("crun", "start", "floor")

    def end(self) -> None:
        _ip(f"link del {_PORT}")
        _run("crun", "delete", "--force", "floor")


@dataclass(frozen=True)
class BareVm:
    """A domain for virsh."""

    xml: Path

    @classmethod
    @contextmanager
    def prepared(cls, rest: Rest, spec: dict[str, object]) -> Iterator[BareVm]:
        rest.create(spec)
        name = str(spec["name"])
        domain = ElementTree.fromstring(_run("virsh", "dumpxml", rest.show(name)["id"]))
        rest.stop(name)  # its files stay
        _text(domain, "name", "floor")
        _text(domain, "uuid", new_id())
        with tempfile.NamedTemporaryFile(suffix=".xml") as file:
            file.write(ElementTree.tostring(domain))
            file.flush()
            yield cls(Path(file.name))
        rest.delete(name)

    def start(self) -> None:
        _run("virsh", "-q", "define", self.xml)
        _run("virsh", "-q", "start", "floor")

    def end(self) -> None:
        _run("virsh", "-q", "destroy", "floor")
        _run("virsh", "-q", "undefine", "floor")


def _text(domain: ElementTree.Element, tag: str, text: str) -> None:
    found = domain.find(tag)
    assert found is not None
    found.text = text


def _ip(*commands: str, prefix: tuple[str, ...] = ()) -> None:
    """Several changes by one ip(8)."""
    subprocess.run([*prefix, "ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def _run(*command: str | Path) -> str:
    # Output goes to a file: a container would hold a pipe open.
    with tempfile.TemporaryFile("w+") as file:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=file)
        file.seek(0)
        return file.read()
