"""What another host's libvirtd may ask of this one's while a guest comes from it. Pure.

Whoever may talk to libvirtd is root on its host. The source of a migration is another host, and as
little trusted: of libvirt's RPC (https://libvirt.org/kbase/internals/rpc.html; RFC 4506) only the
calls of a migration pass, of one guest, paused, that uses no more of this host than it should. On
the way the guest's CPU is put in this host's words (``implied``); nothing else is changed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.libvirt.domain_xml import NAME_PREFIX, NAMESPACE
from virtmgr.drivers.libvirt.implied import Words
from virtmgr.ports.driver import Door, Passage

_HEADER: Final = struct.Struct(
    ">IIIiiIi"
)  # length, program, version, procedure, type, serial, status
_REMOTE, _KEEPALIVE, _CALL = 0x20008086, 0x6B656570, 0
_LARGEST: Final = 4 * 1024**2  # bytes; a definition has some thousands
_STRING: Final = 7  # VIR_TYPED_PARAM_STRING
_PREPARE, _FINISH = 303, 306  # …_MIGRATE_PREPARE3_PARAMS, …_FINISH3_PARAMS
_PLAIN: Final = frozenset(
    {
        1,  # CONNECT_OPEN
        2,  # CONNECT_CLOSE
        60,  # CONNECT_SUPPORTS_FEATURE
        66,  # AUTH_LIST
        360,  # CONNECT_REGISTER_CLOSE_CALLBACK
        361,  # CONNECT_UNREGISTER_CLOSE_CALLBACK
    }
)
_PAUSED: Final = 1 << 5
_FLAGS: Final = 0b1 | 0b10 | 1 << 3 | _PAUSED | 1 << 7 | 1 << 12
"""LIVE, PEER2PEER, PERSIST_DEST, PAUSED, NON_SHARED_INC, ABORT_ON_ERROR (virDomainMigrateFlags)."""
_DEVICES: Final = frozenset(
    {
        *("emulator", "disk", "controller", "interface", "serial", "console", "channel", "input"),
        *("graphics", "audio", "video", "memballoon", "rng", "panic", "watchdog"),
    }
)
_EMULATORS: Final = frozenset(
    {"/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-kvm", "/usr/libexec/qemu-kvm"}
)
_HARMLESS: Final = (  # libvirt names them itself; or they are the distribution's, to be read by all
    *("/machine", "/dev/urandom", "/var/lib/libvirt/qemu/", "/run/libvirt/qemu/", "/usr/share/"),
)


class Refused(DriverError):
    """The source asked for what it may not."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the source of a migration asked libvirt for what it may not: {what}",
            code="migration_refused",
            hint="is that host what it should be?",
        )


@dataclass(frozen=True)
class Expected:
    """The guest that may come, as this host would define it."""

    uuid: str
    paths: frozenset[str]
    bridges: frozenset[str]
    label: str | None  # of QEMU's user and group
    passage: Passage
    words: Words  # this host's, for its CPU


def expected(own: Element, passage: Passage, words: Words) -> Expected:
    """What a definition that this host has made itself allows."""
    bridges = (source.get("bridge", "") for source in own.iterfind("devices/interface/source"))
    return Expected(
        uuid=own.findtext("uuid", ""),
        paths=frozenset(_paths(own)),
        bridges=frozenset(bridges),
        label=own.findtext("seclabel[@model='dac']/label"),
        passage=passage,
        words=words,
    )


class Gate:
    """What comes from the source, cut into messages that have been looked at."""

    def __init__(self, wanted: Expected) -> None:
        self._wanted = wanted
        self._rest = b""

    def pass_on(self, content: bytes) -> bytes:
        """The whole messages that have come by now.

        :raises Refused: one of them may not pass.
        """
        self._rest += content
        passed = b""
        while len(self._rest) >= _HEADER.size:
            length = _HEADER.unpack_from(self._rest)[0]
            if not _HEADER.size <= length <= _LARGEST:
                raise Refused(f"a message of {length} bytes")
            if len(self._rest) < length:
                break
            message, self._rest = self._rest[:length], self._rest[length:]
            passed += _passing(message, self._wanted)
        return passed


def _passing(message: bytes, wanted: Expected) -> bytes:
    """The message as libvirtd is to have it.

    :raises Refused: it is no part of this migration.
    """
    _length, program, version, procedure, kind, *rest = _HEADER.unpack_from(message)
    if program == _KEEPALIVE and len(message) == _HEADER.size:
        return message
    if (program, version, kind) != (_REMOTE, 1, _CALL):
        raise Refused(f"program {program:#x}, version {version}, message type {kind}")
    if procedure in (_PREPARE, _FINISH):
        try:
            arguments = _passing_call(message[_HEADER.size :], wanted)
        except (struct.error, ValueError, ElementTree.ParseError) as error:
            raise Refused(f"a call that cannot be read ({error})") from error
        length = _HEADER.size + len(arguments)
        return _HEADER.pack(length, program, version, procedure, kind, *rest) + arguments
    if procedure not in _PLAIN:
        raise Refused(f"procedure {procedure}")
    return message


def _passing_call(arguments: bytes, wanted: Expected) -> bytes:
    """Typed parameters, then the cookie and the flags; FINISH has a word more."""
    reader = _Reader(arguments)
    passed = _packed(len(parameters := list(reader.parameters())))
    for parameter in parameters:
        passed += _passing_parameter(parameter, wanted)
    passed += _opaque(_passing_cookie(reader.text(), wanted))
    flags = reader.word()
    if flags & ~_FLAGS or not flags & _PAUSED:
        raise Refused(f"migration flags {flags:#x}")
    return passed + _packed(flags) + reader.rest()


def _passing_cookie(cookie: bytes, wanted: Expected) -> bytes:
    """What the libvirtds say to each other beside the guest; how its CPU is now, among it."""
    content = cookie.rstrip(b"\0")
    if not content:
        return cookie
    root = ElementTree.fromstring(content)
    for domain in root.iter("domain"):
        check_domain(domain, wanted)
    return _in_words(root, content, wanted) + cookie[len(content) :]


def _in_words(root: Element, content: bytes, wanted: Expected) -> bytes:
    """The content as it came, unless its CPU has other names here."""
    before = ElementTree.tostring(root)
    for cpu in root.iter("cpu"):
        wanted.words.put(cpu)
    after = ElementTree.tostring(root)
    return content if after == before else after


def _passing_parameter(parameter: _Parameter, wanted: Expected) -> bytes:
    name, value = parameter.name, parameter.text
    if value is None:
        if name != "bandwidth":
            raise Refused(f"parameter {name}")
        return parameter.raw
    if name != "destination_xml":
        _check_text(name, value.decode(), wanted)
        return parameter.raw
    domain = ElementTree.fromstring(value)
    check_domain(domain, wanted)
    changed = _in_words(domain, value, wanted)
    return _opaque(name.encode()) + _packed(_STRING) + _opaque(changed)


def _check_text(name: str, text: str, wanted: Expected) -> None:
    fixed = {
        "migrate_uri": f"unix://{wanted.passage.door(Door.STATE)}",
        "disks_uri": f"unix://{wanted.passage.door(Door.DISKS)}",
    }
    if name == "destination_name":
        _check_name(text, wanted)
    elif name != "migrate_disks" and fixed.get(name) != text:
        raise Refused(f"parameter {name}={text!r}")


def check_domain(domain: Element, wanted: Expected) -> None:
    """Refuse a guest that is another one, or could get at more of this host.

    :raises Refused: why.
    """
    _check_name(domain.findtext("name", ""), wanted)
    if domain.findtext("uuid") != wanted.uuid:
        raise Refused(f"another guest, {domain.findtext('uuid')!r}")
    for element in domain.iter():
        if element.tag.startswith("{") and not element.tag.startswith(f"{{{NAMESPACE}}}"):
            raise Refused(f"element {element.tag}")
        if element.tag == "script":
            raise Refused("a script")
    for path in _paths(domain):
        if path not in wanted.paths | _EMULATORS and not _is_harmless(path):
            raise Refused(f"path {path}")
    for device in domain.iterfind("devices/*"):
        _check_device(device, wanted)
    labels = [
        (each.get("type"), each.get("relabel"), each.findtext("label"))
        for each in domain.iterfind("seclabel")
        if each.get("model") == "dac"
    ]
    if labels != ([] if wanted.label is None else [("static", "no", wanted.label)]):
        raise Refused("QEMU as another user")
    if any(each.get("type") == "none" for each in domain.iterfind("seclabel")):
        raise Refused("QEMU without confinement")


def _check_name(name: str, wanted: Expected) -> None:
    """One that was renamed while it runs has its old name, and always its own ending."""
    ending = f"-{wanted.uuid[-12:]}"
    if not (name.startswith(NAME_PREFIX) and name.endswith(ending)):
        raise Refused(f"another guest, {name!r}")


def _check_device(device: Element, wanted: Expected) -> None:
    kind, source = device.get("type"), device.find("source")
    allowed = {
        "disk": ("file",),
        "interface": ("bridge",),
        "serial": ("unix", "pty"),
        "console": ("unix", "pty"),
        "channel": ("unix", "spicevmc"),
        "graphics": ("vnc",),
    }.get(device.tag)
    if device.tag not in _DEVICES or (allowed is not None and kind not in allowed):
        raise Refused(f"device {device.tag} of type {kind}")
    if device.tag == "interface":
        bridge = source.get("bridge") if source is not None else None
        if bridge not in wanted.bridges:
            raise Refused(f"bridge {bridge}")
    if device.tag == "graphics":
        listens = {device.get("listen"), *(e.get("address") for e in device.iterfind("listen"))}
        if not listens <= {None, "127.0.0.1", "::1"}:
            raise Refused("a display that others reach")


def _paths(domain: Element) -> Iterator[str]:
    """Everything in it that looks like a file of the host; its metadata is not looked at."""
    metadata = domain.find("metadata")
    hidden = set() if metadata is None else set(metadata.iter())
    for element in domain.iter():
        if element not in hidden and element.tag != "cmdline":
            values = [*element.attrib.values(), (element.text or "").strip()]
            yield from (value for value in values if value.startswith("/"))


def _is_harmless(path: str) -> bool:
    return ".." not in Path(path).parts and path.startswith(_HARMLESS)


@dataclass(frozen=True)
class _Parameter:
    """A typed parameter; ``text`` None: it is a number."""

    name: str
    text: bytes | None
    raw: bytes


def _packed(word: int) -> bytes:
    return struct.pack(">I", word)


def _opaque(value: bytes) -> bytes:
    """An opaque value or a string."""
    return _packed(len(value)) + value + b"\0" * (-len(value) % 4)


class _Reader:
    """XDR (RFC 4506) as far as it is needed."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def word(self) -> int:
        (value,) = struct.unpack_from(">I", self._content, self._at)
        self._at += 4
        return int(value)

    def text(self) -> bytes:
        """An opaque value or a string."""
        length = self.word()
        value = self._content[self._at : self._at + length]
        if len(value) < length:
            raise ValueError("cut off")
        self._at += -(-length // 4) * 4
        return value

    def rest(self) -> bytes:
        return self._content[self._at :]

    def parameters(self) -> Iterator[_Parameter]:
        for _ in range(self.word()):
            begin = self._at
            name, kind = self.text().decode(), self.word()
            text = self.text() if kind == _STRING else None
            if kind in (1, 2, 6):
                self._at += 4
            elif kind in (3, 4, 5):
                self._at += 8
            elif kind != _STRING:
                raise ValueError(f"parameter {name} of type {kind}")
            yield _Parameter(name, text, self._content[begin : self._at])
