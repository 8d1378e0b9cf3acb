"""What a migration's source may ask of the target's libvirtd. Nothing runs here."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.libvirt.test_xml import VMS
from virtmgr.drivers.libvirt import domain_xml
from virtmgr.drivers.libvirt.gate import Gate, Refused, check_domain, expected
from virtmgr.drivers.libvirt.implied import Words
from virtmgr.ports.driver import Passage

PASSAGE = Passage(Path("/run/virtmgr-agent/migrations/m1"))
REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
FLAGS = 0xAB  # as libvirt 9.0 and 11.3 send it
STATE = "unix:///run/virtmgr-agent/migrations/m1/state"
OLD, NEW = (
    Words(version, vendors={"EPYC": "AMD", "Nehalem": "Intel"}) for version in (7002022, 10000008)
)
DISKS = "unix:///run/virtmgr-agent/migrations/m1/disks"


def own(name: str = "disk_vm") -> Element:
    return domain_xml.build(VMS[name]())


def gate(name: str = "disk_vm", words: Words = OLD) -> Gate:
    return Gate(expected(own(name), PASSAGE, words))


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
    wanted = expected(own(), PASSAGE, OLD)
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


# ---- in the target's words

_FOUR = '<topology sockets="1" dies="1" cores="4" threads="1"/>'
_ONE = '<topology sockets="1" dies="1" cores="1" threads="1"/>'


def described(model: str, *features: str, topology: str = _FOUR, check: str = "full") -> bytes:
    named = "".join(f'<feature policy="require" name="{name}" />' for name in features)
    return (
        f'<qemu-migration><name>x</name><cpu mode="custom" match="exact" check="{check}">'
        f"<model>{model}</model>{topology}{named}</cpu></qemu-migration>\0"
    ).encode()


def features(passed: bytes) -> list[str | None]:
    """Of the cookie in a PREPARE3_PARAMS, by reading the call as libvirtd does."""
    assert struct.unpack_from(">I", passed)[0] == len(passed)
    found = passed[passed.index(b"<qemu-migration") : passed.index(b"</qemu-migration>") + 17]
    cpu = ElementTree.fromstring(found).find("cpu")
    assert cpu is not None
    return [each.get("name") for each in cpu.iterfind("feature")]


@pytest.mark.parametrize(
    ("words", "cookie", "expected_features"),
    [
        (NEW, described("Nehalem", "vme"), ["vme", "ht"]),
        (NEW, described("EPYC", "vme"), ["vme", "ht", "cmp_legacy"]),
        (NEW, described("qemu64"), ["ht", "cmp_legacy"]),
        (NEW, described("kvm64"), ["ht"]),
        (replace(NEW, vendor="Intel"), described("EPYC"), ["ht"]),  # KVM: the host's own maker
        (OLD, described("Nehalem", "ht", "vme"), ["vme"]),
        (OLD, described("EPYC", "cmp_legacy", "ht"), []),
    ],
)
def test_the_cpu_is_told_as_the_target_names_it(
    words: Words, cookie: bytes, expected_features: list[str]
) -> None:
    passed = gate(words=words).pass_on(call(cookie=cookie))
    assert features(passed) == expected_features
    # The other way round it is as it was, and nothing else has changed meanwhile.
    back = gate(words=OLD if words is not OLD else NEW).pass_on(passed)
    assert sorted(features(back), key=str) == sorted(features(call(cookie=cookie)), key=str)
    assert gate(words=OLD).pass_on(passed)[-4:] == struct.pack(">I", FLAGS)


@pytest.mark.parametrize("words", [OLD, NEW])
@pytest.mark.parametrize(
    "cookie",
    [
        described("Nehalem", topology=_ONE),
        described("Nehalem", topology=""),
        described("Nehalem", check="partial"),
        b"<qemu-migration/>\0",
        b"",
    ],
)
def test_all_else_passes_as_it_came(words: Words, cookie: bytes) -> None:
    whole = call(cookie=cookie, bandwidth=20)
    assert gate(words=words).pass_on(whole) == whole


def test_what_comes_from_a_host_of_the_same_words_passes_as_it_came() -> None:
    for words, cookie in ((NEW, described("EPYC", "ht")), (OLD, described("EPYC", "vme"))):
        whole = call(cookie=cookie)
        assert gate(words=words).pass_on(whole) == whole
