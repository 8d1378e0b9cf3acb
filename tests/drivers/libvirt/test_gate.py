"""What a migration's source may ask of the target's libvirtd. Nothing runs here."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.libvirt.test_xml import VMS
from virtmgr.drivers.libvirt import domain_xml
from virtmgr.drivers.libvirt.gate import Gate, Refused, check_domain, expected
from virtmgr.ports.driver import Passage

PASSAGE = Passage(Path("/run/virtmgr-agent/migrations/m1"))
REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
FLAGS = 0xAB  # as libvirt 9.0 and 11.3 send it
STATE = "unix:///run/virtmgr-agent/migrations/m1/state"
DISKS = "unix:///run/virtmgr-agent/migrations/m1/disks"


def own(name: str = "disk_vm") -> Element:
    return domain_xml.build(VMS[name]())


def gate(name: str = "disk_vm") -> Gate:
    return Gate(expected(own(name), PASSAGE))


def message(procedure: int, body: bytes = b"", *, program: int = REMOTE, kind: int = 0) -> bytes:
    return struct.pack(">IIIiiIi", 28 + len(body), program, 1, procedure, kind, 7, 0) + body


def xdr(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content + b"\0" * (-len(content) % 4)


def call(
    domain: Element | None = None,
    *,
    flags: int = FLAGS,
    cookie: bytes = b"",
    **parameters: str | int,
) -> bytes:
    """A PREPARE3_PARAMS."""
    given = {
        "destination_xml": ElementTree.tostring(own() if domain is None else domain).decode(),
        "migrate_uri": STATE,
        "disks_uri": DISKS,
        **parameters,
    }
    body = struct.pack(">I", len(given))
    for name, value in given.items():
        body += xdr(name.encode())
        if isinstance(value, int):
            body += struct.pack(">IQ", 4, value)
        else:
            body += struct.pack(">I", 7) + xdr(value.encode())
    return message(303, body + xdr(cookie) + struct.pack(">I", flags))


@pytest.mark.parametrize("name", VMS)
def test_a_migration_passes(name: str) -> None:
    before = [message(66), message(60, b"\0\0\0\1"), message(1, b"\0" * 28), message(360)]
    finish = call(own(name), migrate_disks="vda", bandwidth=20)[28:]
    after = [message(306, finish + b"\0\0\0\0"), message(361), message(2)]
    ping = message(1, program=KEEPALIVE, kind=2)
    everything = b"".join([*before, ping, call(own(name), cookie=b"<qemu-migration/>\0"), *after])
    passed = b""
    opened = gate(name)
    for start in range(0, len(everything), 1000):  # however it comes
        passed += opened.pass_on(everything[start : start + 1000])
    assert passed == everything


@pytest.mark.parametrize("procedure", [8, 9, 10, 11, 12, 54, 103, 208, 303 + 1, 305, 400])
def test_nothing_else_of_libvirt_passes(procedure: int) -> None:
    with pytest.raises(Refused):
        gate().pass_on(message(procedure))


@pytest.mark.parametrize(
    "bad",
    [
        message(66, program=0x20008087),  # another program: QEMU's monitor
        message(66, kind=4),  # with file descriptors
        message(1, b"much", program=KEEPALIVE, kind=2),
        struct.pack(">I", 1 << 30) + b"\0" * 40,
        struct.pack(">I", 3) + b"\0" * 40,
        call(flags=FLAGS & ~0x20),  # it would run at once
        call(flags=FLAGS | 0x200),  # UNSAFE
        call(migrate_uri="tcp:0.0.0.0:49152"),
        call(disks_uri="tcp:0.0.0.0:49153"),
        call(listen_address="0.0.0.0"),
        call(destination_name="another"),
        call(disks_port=49153),
        call(cookie=b"<qemu-migration><domain><uuid>x</uuid></domain></qemu-migration>"),
        call(cookie=b"<"),
        message(303, b"\0\0\0\1"),
    ],
)
def test_other_calls_are_refused(bad: bytes) -> None:
    with pytest.raises(Refused):
        gate().pass_on(bad)


def _another_file(domain: Element) -> None:
    source = domain.find("devices/disk/source")
    assert source is not None
    source.set("file", "/etc/shadow")


def _another_bridge(domain: Element) -> None:
    source = domain.find("devices/interface/source")
    assert source is not None
    source.set("bridge", "br0")


def _another_user(domain: Element) -> None:
    label = domain.find("seclabel/label")
    assert label is not None
    label.text = "+0:+0"


def _no_label(domain: Element) -> None:
    domain.remove(domain.findall("seclabel")[0])


def _device(tag: str, **attributes: str) -> Callable[[Element], None]:
    def change(domain: Element) -> None:
        devices = domain.find("devices")
        assert devices is not None
        SubElement(devices, tag, attributes)

    return change


def _command_line(domain: Element) -> None:
    SubElement(domain, "{http://libvirt.org/schemas/domain/qemu/1.0}commandline")


def _emulator(domain: Element) -> None:
    devices = domain.find("devices")
    assert devices is not None
    SubElement(devices, "emulator").text = "/tmp/evil"


def _above(domain: Element) -> None:
    source = domain.find("devices/disk/source")
    assert source is not None
    source.set("file", "/var/lib/libvirt/qemu/../../../../etc/shadow")


def _script(domain: Element) -> None:
    interface = domain.find("devices/interface")
    assert interface is not None
    SubElement(interface, "script", path="evil")


def _another_guest(domain: Element) -> None:
    uuid = domain.find("uuid")
    assert uuid is not None
    uuid.text = "0198c0de-0000-7000-8000-00000000000b"


def _display(domain: Element) -> None:
    for graphics in domain.iterfind("devices/graphics"):
        graphics.set("listen", "0.0.0.0")


@pytest.mark.parametrize(
    "change",
    [
        _another_file,
        _another_bridge,
        _another_user,
        _no_label,
        _command_line,
        _emulator,
        _above,
        _script,
        _another_guest,
        _display,
        _device("hostdev", mode="subsystem", type="pci"),
        _device("filesystem", type="mount"),
        _device("disk", type="block"),
        _device("interface", type="direct"),
        _device("serial", type="tcp"),
        _device("tpm", model="tpm-crb"),
    ],
)
def test_other_guests_are_refused(change: Callable[[Element], None]) -> None:
    domain = own()
    wanted = expected(own(), PASSAGE)
    check_domain(domain, wanted)
    change(domain)
    with pytest.raises(Refused):
        check_domain(domain, wanted)


@given(st.binary(max_size=200))
def test_nonsense_is_refused_or_waited_for(content: bytes) -> None:
    opened = gate()
    try:
        assert content.startswith(opened.pass_on(content))
    except Refused:
        pass
