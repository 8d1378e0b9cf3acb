"""From the options of ``create`` and ``run`` to a workload's spec, as data. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from virtmgr.domain.errors import InvalidRequest

Spec = dict[str, Any]

IO_FIELDS = (
    *("read_bytes_per_second", "write_bytes_per_second"),
    *("read_operations_per_second", "write_operations_per_second"),
)

_PORT = re.compile(
    r"(?:(?P<address>\[[^\]]+\]|[^:\[\]]+):)?(?P<host>\d+):(?P<guest>\d+)(?:/(?P<protocol>tcp|udp))?"
)


def parse_port(text: str) -> Spec:
    """``8080:80``, ``0.0.0.0:8080:80``, ``[::]:53:53/udp``.

    :raises InvalidRequest: for anything else.
    """
    found = _PORT.fullmatch(text)
    if found is None:
        raise InvalidRequest(
            f"{text!r} publishes no port; write HOST:GUEST, such as 8080:80",
            field="ports",
            hint="the whole form is [ADDRESS:]HOST:GUEST[/tcp|/udp]",
        )
    port: Spec = {"host": int(found["host"]), "guest": int(found["guest"])}
    if found["protocol"]:
        port["protocol"] = found["protocol"]
    if found["address"]:
        port["address"] = _address(found["address"].strip("[]"), text)
    return port


def parse_volume(text: str) -> Spec:
    """``data`` (VMs), ``data:/path`` or ``data:/path:ro``.

    :raises InvalidRequest: an unknown last part.
    """
    volume, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if path in ("ro", "rw") and not mode:
        path, mode = "", path
    if not volume or mode not in ("", "ro", "rw"):
        raise InvalidRequest(
            f"{text!r} attaches no volume; write VOLUME, VOLUME:/PATH or VOLUME:/PATH:ro",
            field="volumes",
        )
    mount: Spec = {"volume": volume}
    if path:
        mount["path"] = path
    if mode == "ro":
        mount["read_only"] = True
    return mount


def parse_nic(text: str) -> Spec:
    """``default`` or ``default:10.0.0.7`` (``default:fd00::7``)."""
    network, _, address = text.partition(":")
    nic: Spec = {"network": network}
    if address:
        nic["address"] = address if address == "auto" else _address(address.strip("[]"), text)
    return nic


def build(
    *,
    name: str,
    options: Mapping[str, Any],
    resources: Mapping[str, Any],
    io: Mapping[str, Any],
    placement: Mapping[str, Any],
    disk: str | None = None,
    networks: Sequence[str] = (),
    volumes: Sequence[str] = (),
    ports: Sequence[str] = (),
) -> Spec:
    """The spec; what was not given is left out, so that the server's defaults hold.

    ``options`` are fields of the spec by their own names. The network ``none`` means no NIC.
    """
    spec: Spec = {"name": name, **_given(options)}
    if found := _given({**resources, "io": _given(io)}):
        spec["resources"] = found
    if disk:
        spec["root_disk"] = {"size": disk}
    if volumes:
        spec["volumes"] = [parse_volume(text) for text in volumes]
    if tuple(networks) == ("none",):
        spec["nics"] = []
    elif networks:
        spec["nics"] = [parse_nic(text) for text in networks]
    if ports:
        spec["ports"] = [parse_port(text) for text in ports]
    if found := _given(placement):
        spec["placement"] = found
    return spec


def _given(values: Mapping[str, Any]) -> Spec:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value is not None and value is not False and value not in ((), {})
    }


def _address(text: str, whole: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise InvalidRequest(f"{whole!r}: {text!r} is no IP address") from error
