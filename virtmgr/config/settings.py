"""How the processes of virtmgr are configured: frozen values, from options and environment.

An option wins over its environment variable, which wins over the default. Secrets come from
files or the environment only, never from the command line, which every user of a machine sees.
This module is imported at every start of the command line, so it stays light.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

SERVER_PREFIX = "VIRTMGR_"
AGENT_PREFIX = "VIRTMGR_AGENT_"
_MOST_HOURS = 24 * 3650
_MOST_PROCESSES = 64
_SECRET_PARAMETERS = {"password", "sslpassword"}  # of libpq
_ADDRESS = re.compile(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]{2,45}")


@dataclass(frozen=True)
class Endpoint:
    """A TCP address to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """``127.0.0.1:7443``, ``[::1]:7443`` or ``name:7443``; port 0 for any free one.

        :raises ValueError: for anything else.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        number = int(port) if port.isascii() and port.isdigit() else -1
        if not colon or not host or (":" in host and not bracketed) or not 0 <= number <= 65535:
            raise ValueError(f"{text!r} is no address to listen on; write ADDRESS:PORT")
        return cls(host, number)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The control plane: ``virtmgr init``, ``serve`` and ``db``."""

    data_directory: Path = Path("/var/lib/virtmgr")  # SQLite, certificate, and what is shared
    shared_directory: Path | None = None  # private CA, images; by default the data directory
    run_directory: Path = Path("/run/virtmgr")  # sockets and process ids, gone at reboot
    database: str = ""  # SQLAlchemy URL; given by ``load``, SQLite in data_directory by default
    listen: Endpoint = Endpoint("127.0.0.1", 7443)  # REST API and console
    build_cache: Path | None = None  # packages of image builds; by default below data_directory
    agent_listen: Endpoint = Endpoint("127.0.0.1", 7444)  # agents, with client certificates
    stream_listen: Endpoint = Endpoint("127.0.0.1", 7445)  # exec, console, VNC
    wheelhouse: Path | None = None  # what hosts install from; by default below data_directory
    address: str = ""  # what clients and agents call it by, such as a load balancer's name
    certificate: Path | None = None  # of the operator's own, with its chain, for API and streams
    key: Path | None = None  # of that certificate
    control_plane_addresses: tuple[str, ...] = ()  # that hosts are dialled from, of all of them
    registry_mirrors: str = ""  # ORIGIN=https://MIRROR,…; asked before the registry ORIGIN
    web_processes: int = 1  # several serve operators or agents each; PostgreSQL only

    @classmethod
    def load(cls, options: Mapping[str, str | None], environment: Mapping[str, str]) -> Self:
        """From ``options`` (by field name, None where not given) and VIRTMGR_… variables.

        :raises ValueError: an address or a file is not usable; the message names the option.
        """
        names = (
            *("data_directory", "shared_directory", "run_directory"),
            *("build_cache", "wheelhouse", "certificate", "key"),
        )
        paths = _paths(names, options, environment, SERVER_PREFIX)
        listeners = {
            name: _endpoint(name, text)
            for name in ("listen", "agent_listen", "stream_listen")
            if (text := _given(name, options, environment, SERVER_PREFIX))
        }
        mirrors = _given("registry_mirrors", options, environment, SERVER_PREFIX)
        address = _address(_given("address", options, environment, SERVER_PREFIX))
        dialling = _given("control_plane_addresses", options, environment, SERVER_PREFIX)
        known: dict[str, Any] = {
            **paths,
            **listeners,
            "address": address,
            "control_plane_addresses": _networks("--control-plane-addresses", dialling),
            "registry_mirrors": mirrors,
        }
        if text := _given("web_processes", options, environment, SERVER_PREFIX):
            known["web_processes"] = _count("--web-processes", text)
        settings = cls(**known)
        if (settings.certificate is None) != (settings.key is None):
            raise ValueError("--certificate and --key go together: give both, or none")
        database = _database(settings.data_directory, options, environment)
        if settings.web_processes > 1 and database.startswith("sqlite:"):
            raise ValueError(
                "--web-processes: several need PostgreSQL, by which they tell each other the news"
            )
        return replace(settings, database=database)

    @property
    def shared(self) -> Path:
        """What all control planes of one database must see: the CA's key, images."""
        return self.shared_directory or self.data_directory

    @property
    def ca_file(self) -> Path:
        """The certificate of the private CA, which clients and agents pin."""
        return self.shared / "pki" / "ca.crt"

    @property
    def given_certificate(self) -> tuple[Path, Path] | None:
        """Certificate and key that the operator has given for API and streams."""
        if self.certificate is None or self.key is None:
            return None
        return self.certificate, self.key

    @property
    def own_pki(self) -> Path:
        """Where this control plane's own certificate is."""
        return self.data_directory / "pki"


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """A host's agent: ``virtmgr agent`` and ``host-…``."""

    data_directory: Path = Path("/var/lib/virtmgr-agent")  # key, desired state, images, disks
    run_directory: Path = Path("/run/virtmgr-agent")
    server: str = ""  # https://ADDRESS:PORT of the control plane's agent listener
    join_token_file: Path | None = None  # only needed until the host is enrolled
    ca_file: Path | None = None  # the control plane's CA; kept after enrolment
    stream_listen: Endpoint = Endpoint("127.0.0.1", 0)  # where the control plane dials streams
    tunnel_address: str = ""  # of overlay networks; empty: that of the way to the control plane
    runtime: str = "crun"  # the OCI runtime of containers, by name or path: crun or runc
    keep_images: float = 24.0  # hours that an image stays which no workload here needs

    @classmethod
    def load(cls, options: Mapping[str, str | None], environment: Mapping[str, str]) -> Self:
        """From ``options`` (by field name, None where not given) and VIRTMGR_AGENT_… variables.

        :raises ValueError: the server's URL is not https, or an address or a number is not usable.
        """
        names = ("data_directory", "run_directory", "join_token_file", "ca_file")
        known: dict[str, Any] = {**_paths(names, options, environment, AGENT_PREFIX)}
        if text := _given("stream_listen", options, environment, AGENT_PREFIX):
            known["stream_listen"] = _endpoint("stream_listen", text)
        if text := _given("tunnel_address", options, environment, AGENT_PREFIX):
            known["tunnel_address"] = _tunnel_address("--tunnel-address", text)
        if text := _given("runtime", options, environment, AGENT_PREFIX):
            known["runtime"] = text
        if text := _given("keep_images", options, environment, AGENT_PREFIX):
            known["keep_images"] = _hours("--keep-images", text)
        server = _given("server", options, environment, AGENT_PREFIX).rstrip("/")
        if server and urlsplit(server).scheme != "https":
            raise ValueError(f"--server: {server!r} is no https:// URL")
        return cls(**known, server=server)


@dataclass(frozen=True, kw_only=True)
class Initialised:
    """What ``virtmgr init`` made, for the person who ran it."""

    server: str  # https://… of the REST API
    ca_file: Path | None  # None: the certificate is the operator's own
    user: str
    token: str | None  # the first administrator's token; None: made by an earlier init


@dataclass(frozen=True, kw_only=True)
class BackedUp:
    """What a backup holds, for the person who made or restored it."""

    made_at: str  # ISO 8601
    tables: tuple[tuple[str, int, str], ...]  # name, rows, checksum
    files: tuple[str, ...]
    images: int  # blobs
    image_bytes: int


def has_password(url: str) -> bool:
    """Whether a database URL carries a password."""
    parts = urlsplit(url)
    return parts.password is not None or bool(parse_qs(parts.query).keys() & _SECRET_PARAMETERS)


def _endpoint(name: str, text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except ValueError as error:
        raise ValueError(f"--{name.replace('_', '-')}: {error}") from error


def _tunnel_address(name: str, text: str) -> str:
    from ipaddress import ip_address

    try:
        address = ip_address(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    local = address.is_loopback or address.is_link_local
    if local or address.is_multicast or address.is_unspecified:
        raise ValueError(f"{name}: other hosts cannot send to {address}")
    return str(address)


def _address(text: str) -> str:
    if text and _ADDRESS.fullmatch(text) is None:
        raise ValueError(f"--address: {text!r} is no host name and no IP address; give no port")
    return text


def _networks(name: str, text: str) -> tuple[str, ...]:
    """Addresses and networks, as they came."""
    from ipaddress import ip_network

    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        try:
            ip_network(part)
        except ValueError as error:
            raise ValueError(
                f"{name}: {error}; write ADDRESS or ADDRESS/BITS, with commas"
            ) from error
    return found


def _count(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_PROCESSES:
        raise ValueError(f"{name}: {text!r} is no number from 1 to {_MOST_PROCESSES}")
    return int(text)


def _hours(name: str, text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not 0 <= hours <= _MOST_HOURS:
        raise ValueError(f"{name}: {text!r} is no number of hours up to {_MOST_HOURS}")
    return hours


def _given(
    name: str, options: Mapping[str, str | None], environment: Mapping[str, str], prefix: str
) -> str:
    return options.get(name) or environment.get(prefix + name.upper(), "")


def _paths(
    names: Iterable[str],
    options: Mapping[str, str | None],
    environment: Mapping[str, str],
    prefix: str,
) -> dict[str, Path]:
    given = {name: _given(name, options, environment, prefix) for name in names}
    return {name: Path(text).absolute() for name, text in given.items() if text}


def _database(
    data_directory: Path, options: Mapping[str, str | None], environment: Mapping[str, str]
) -> str:
    if url := options.get("database"):
        return url
    if file := _given("database_file", options, environment, SERVER_PREFIX):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"--database-file: {error}") from error
    if url := environment.get(SERVER_PREFIX + "DATABASE"):
        return url
    return f"sqlite:///{data_directory / 'virtmgr.db'}"
