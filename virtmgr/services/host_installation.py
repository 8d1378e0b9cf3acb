"""Making machines hosts by ssh: what is asked for. ``installation_worker`` does it.

Credentials lie in the inventory only sealed (``ports.vault``), from the request to the end of its
operation; longer only for whoever asks for it.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from virtmgr.domain.errors import Conflict, InvalidRequest, Unavailable
from virtmgr.domain.host import Host, HostAccess, HostState
from virtmgr.domain.host_states import COMING
from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import Operation
from virtmgr.domain.ssh import check_private_key, fingerprint_of
from virtmgr.domain.values import Name, Reference, Value
from virtmgr.ports.playbooks import Login
from virtmgr.services import clusters
from virtmgr.services.container import Services
from virtmgr.services.context import Context
from virtmgr.services.hosts import HostCreate, HostFields, lock

ENROLL: Final = "enroll"
REINSTALL: Final = "reinstall"
RENEW: Final = "renew_certificates"
UPGRADE: Final = "upgrade"
VERBS: Final = (ENROLL, REINSTALL, RENEW, UPGRADE)
"""Verbs of operations; the playbooks of the collection are called the same."""

Address = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*)$",
        description="Its name or IP address, as the control plane reaches it.",
    ),
]
_User = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.-]{0,31}$", description="Who logs in.")]
_Port = Annotated[int, Field(ge=1, le=65535, description="Of its ssh server.")]
_Password = Annotated[SecretStr, Field(max_length=1024)]
HostKeyText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description="The key that its ssh server must show: SHA256:… as POST /hosts/scan-key gives "
        "it, or the public key itself. Compare it on the machine's own console.",
    ),
]


class _Credentials(Value):
    """With what to log in by ssh and become root."""

    private_key: SecretStr | None = Field(
        None, max_length=65536, description="A private key in OpenSSH's or PEM format."
    )
    password: _Password | None = Field(None, description="The user's password, for ssh and sudo.")
    become_password: _Password | None = Field(
        None, description="The password for sudo, where it is another one or ssh needs none."
    )

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if self.private_key is None and self.password is None:
            raise ValueError("give private_key or password")
        for secret in (self.password, self.become_password):
            if secret is not None and not _is_one_line(secret.get_secret_value()):
                raise ValueError("a password is one line")
        return self


class SshLogin(_Credentials):
    """How to log in by ssh and become root. Used once and forgotten, unless asked to be kept."""

    user: _User = "root"
    port: _Port = 22


class SshAgain(_Credentials):
    """The same for a further run: who logs in, and where, is as before unless it is given."""

    user: _User | None = None
    port: _Port | None = None


class HostEnroll(HostFields):
    """A machine to make a host of."""

    cluster: Reference = Field("default", description="Its cluster, by name or id.")
    address: Address
    ssh: SshLogin
    host_key: HostKeyText
    vms: bool = Field(True, description="False: no libvirt and no QEMU, containers only.")
    keep_credentials: bool = Field(
        False, description="Keep them, encrypted, for later runs on this host."
    )


class HostAdd(HostFields):
    """A machine to make a host of; without ``ssh`` one that its agent makes it by a join token."""

    name: Name | None = Field(  # type: ignore[assignment]
        None, description="Unique. A DNS label. Default: the first label of address."
    )
    cluster: Reference = Field("default", description="Its cluster, by name or id.")
    address: Address | None = None
    ssh: SshLogin | None = Field(
        None, description="How to log in. Without it: deprecated, see POST /host-tokens."
    )
    host_key: HostKeyText | None = None
    vms: bool = Field(True, description="False: no libvirt and no QEMU, containers only.")
    keep_credentials: bool = Field(
        False, description="Keep them, encrypted, for later runs on this host."
    )

    @property
    def own_name(self) -> str:
        """The name, given or taken from the address.

        :raises InvalidRequest: there is neither.
        """
        first = (self.address or "").partition(".")[0].lower()
        if self.name is not None:
            return self.name
        if not first or first.isdecimal() or ":" in first or "_" in first:
            raise InvalidRequest(
                "a host needs a name, and there is none in its address",
                field="name",
                hint="give name, or address as a DNS name",
            )
        return first

    def to_enroll(self) -> HostEnroll:
        """What is asked by ssh.

        :raises InvalidRequest: something is missing for that.
        """
        for field in ("address", "ssh", "host_key"):
            if getattr(self, field) is None:
                raise InvalidRequest(
                    f"a machine is made a host by ssh with address, ssh and host_key; {field} is "
                    "missing",
                    field=field,
                    hint="POST /hosts/scan-key shows host_key"
                    if field == "host_key"
                    else f"give {field}",
                )
        return HostEnroll.model_validate({**dict(self), "name": self.own_name})

    def to_create(self) -> HostCreate:
        """What is asked for a join token.

        :raises InvalidRequest: something is given that only ssh has a use for.
        """
        useless = {"address", "host_key", "vms", "keep_credentials"} & self.model_fields_set
        if useless:
            raise InvalidRequest(
                f"{min(useless)} is for machines that virtmgr logs in to, and ssh is missing",
                field="ssh",
                hint="give ssh, or ask for a join token with POST /host-tokens",
            )
        return HostCreate(name=self.own_name, cluster=self.cluster, labels=self.labels)


class HostAgain(Value):
    """A further run on a host. What is not given is as it was before."""

    address: Address | None = None
    ssh: SshAgain | None = Field(None, description="Needed unless the credentials were kept.")
    host_key: HostKeyText | None = None
    keep_credentials: bool | None = Field(None, description="Whether to keep them from now on.")


def enroll(context: Context, asked: HostEnroll) -> Operation:
    """Begin to make a machine a host.

    :raises NameTaken: another host has the name.
    :raises Conflict: another host has the address.
    :raises InvalidRequest: its key or credentials cannot be used.
    """
    _check_address(context, asked.address, asked.ssh.port)
    host = Host(
        id=new_id(),
        name=asked.name,
        cluster_id=clusters.find(context, asked.cluster, "cluster").id,
        state=HostState.INSTALLING,
        labels=dict(asked.labels),
        created_at=context.now,
    )
    context.uow.hosts.add(host)
    access = HostAccess(
        host_id=host.id,
        address=asked.address,
        port=asked.ssh.port,
        user=asked.ssh.user,
        host_key=fingerprint_of(asked.host_key),
        vms=asked.vms,
        sealed=_sealed(context, host.id, asked.ssh),
        kept=asked.keep_credentials,
    )
    context.uow.host_access.add(access)
    operation = context.begin(ENROLL, "host", host)
    context.record(
        "host.created",
        host,
        f"host {host.name} is being made of the machine at {asked.address}",
        host_id=host.id,
        operation_id=operation.id,
    )
    return operation


def again(context: Context, reference: str, verb: str, asked: HostAgain) -> Operation:
    """Begin a further run: ENROLL goes on where an installation failed, REINSTALL lets a host join
    anew, RENEW gets it a new certificate and UPGRADE this control plane's release.

    :raises Conflict: something is under way on the host, or it is in no state for this.
    :raises InvalidRequest: there are no credentials, or no address.
    """
    host = lock(context, reference)
    _check_state(context, host, verb)
    access = _access(context, host, asked)
    if access.sealed is None:
        raise InvalidRequest(
            f"there are no credentials for host {host.name}: they are used once and forgotten",
            code="credentials_needed",
            hint="give them again, in 'ssh'",
            field="ssh",
        )
    if verb == ENROLL:
        host.state = HostState.INSTALLING
    operation = context.begin(verb, "host", host)
    what = verb.replace("_", " ")
    context.record(
        f"host.{verb}",
        host,
        f"{what} of host {host.name} by ssh was begun",
        host_id=host.id,
        operation_id=operation.id,
    )
    context.uow.flush()
    return operation


def login(services: Services, access: HostAccess) -> Login:
    """The credentials of a host, opened.

    :raises Unavailable: there are none any more, or they were sealed with another key.
    """
    if access.sealed is None:
        raise Unavailable(
            "the credentials are gone", code="credentials_needed", hint="give them again"
        )
    opened = services.vault.open(access.sealed, purpose(access.host_id))
    return Login(user=access.user, **json.loads(opened))


def _check_state(context: Context, host: Host, verb: str) -> None:
    if running := [each for each in context.uow.operations.open_for(host.id) if each.verb in VERBS]:
        raise Conflict(
            f"{running[0].verb} of host {host.name} is under way",
            code="under_way",
            hint=f"wait for operation {running[0].id}",
        )
    if verb == UPGRADE and host.state in COMING:
        raise Conflict(
            f"host {host.name} is {host.state.value}: there is nothing on it to upgrade",
            code="not_installed",
            hint="let it join first",
        )
    failed = host.state is HostState.INSTALL_FAILED
    if (verb == ENROLL) != failed:
        raise Conflict(
            f"host {host.name} is {host.state.value}: "
            + ("its installation has not been finished" if failed else "it is installed"),
            hint="try the installation again" if failed else "reinstall it, if that is meant",
        )


def _access(context: Context, host: Host, asked: HostAgain) -> HostAccess:
    """How to log in to the host from now on: as before, but for what is given."""
    access = context.uow.host_access.get(host.id)
    if access is None:
        if asked.address is None or asked.ssh is None or asked.host_key is None:
            raise InvalidRequest(
                f"virtmgr has never logged in to host {host.name}",
                code="credentials_needed",
                hint="give address, ssh and host_key",
                field="address",
            )
        access = HostAccess(
            host_id=host.id,
            address=asked.address,
            user="root",
            host_key=fingerprint_of(asked.host_key),
        )
        context.uow.host_access.add(access)
    if asked.host_key is not None:
        access.host_key = fingerprint_of(asked.host_key)
    if asked.ssh is not None:
        access.port, access.user = asked.ssh.port or access.port, asked.ssh.user or access.user
        access.sealed = _sealed(context, host.id, asked.ssh)
    if asked.keep_credentials is not None:
        access.kept = asked.keep_credentials
    if asked.address is not None:
        access.address = asked.address
        _check_address(context, access.address, access.port, but=host.id)
    return access


def _check_address(context: Context, address: str, port: int, but: str = "") -> None:
    """Refuse the address of a machine that is a host, as far as it can be told by it.

    :param but: the id of the host that may have it.
    """
    taken = {each.host_id for each in context.uow.host_access.at(address) if each.port == port}
    for host in context.uow.hosts.all():
        streams = urlsplit(str(host.facts.get("stream_url", ""))).hostname
        if host.id != but and (host.id in taken or streams == address):
            raise Conflict(
                f"the machine at {address} is host {host.name!r} already",
                code="address_taken",
                hint=f"'virtmgr host retry {host.name}' if its installation failed, 'virtmgr host "
                f"reinstall {host.name}' to let it join anew, or remove that host first",
                field="address",
            )


def purpose(host_id: str) -> str:
    """What a host's credentials are sealed for."""
    return f"host {host_id}"


def _sealed(context: Context, host_id: str, given: _Credentials) -> str:
    secrets = {
        name: secret.get_secret_value()
        for name in ("private_key", "password", "become_password")
        if (secret := getattr(given, name)) is not None
    }
    if "private_key" in secrets:
        secrets["private_key"] = check_private_key(secrets["private_key"])
    return context.services.vault.seal(json.dumps(secrets).encode(), purpose(host_id))


def _is_one_line(text: str) -> bool:
    return bool(text) and text.isprintable()
