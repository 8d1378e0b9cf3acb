"""Networks of projects, and those that all projects share."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from virtmgr.domain.access import Action
from virtmgr.domain.errors import Conflict, InvalidRequest, NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import (
    Address,
    Network,
    NetworkType,
    choose_vni,
    is_routed,
    overlay_mtu,
)
from virtmgr.domain.values import Labels, Name, Value
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services.context import Context
from virtmgr.services.in_use import refuse_in_use
from virtmgr.services.overlays import announce, carried_mtu

_PRIVATE: Final = tuple(
    ipaddress.ip_network(cidr)
    for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_PREFIXES: Final = {4: (8, 29), 6: (48, 120)}  # room for a gateway and some addresses
_USUAL_MTU: Final = 1500
_LEAST_MTU: Final = 1280  # of IPv6 (RFC 8200 §5)
_SHARED_ACTIONS: Final[Mapping[Action, Action]] = {
    Action.NETWORKS_UPDATE: Action.SHARED_NETWORKS_UPDATE,
    Action.NETWORKS_DELETE: Action.SHARED_NETWORKS_DELETE,
}


def _check_cidr(text: str, version: int) -> str:
    parsed = ipaddress.ip_network(text)
    smallest, largest = _PREFIXES[version]
    if parsed.version != version:
        raise ValueError(f"give an IPv{version} network")
    if not smallest <= parsed.prefixlen <= largest:
        raise ValueError(f"the prefix length lies between {smallest} and {largest}")
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast:
        raise ValueError(f"{parsed} is kept for other purposes")
    return str(parsed)


IPv4Cidr = Annotated[str, AfterValidator(lambda text: _check_cidr(text, 4)), Field(max_length=43)]
IPv6Cidr = Annotated[str, AfterValidator(lambda text: _check_cidr(text, 6)), Field(max_length=43)]


class NetworkFields(Value):
    """What can be changed of a network."""

    name: Name = Field(description="Unique in the project; part of its workloads' DNS names.")
    dns_domain: str = Field(
        "virt",
        max_length=253,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
        description="Names are WORKLOAD.NETWORK.DOMAIN.",
    )
    labels: Labels = Field(default_factory=dict, description="Key and value pairs to select by.")


class NetworkCreate(NetworkFields):
    """A new network."""

    type: NetworkType = Field(
        NetworkType.NAT,
        description="nat: private on each host, reaches out through it; overlay: the same across "
        "hosts; bridge: joins a bridge that the hosts have; vlan: a VLAN on their interface.",
    )
    ipv4: IPv4Cidr | None = Field(None, description="CIDR; its first address is the gateway.")
    ipv6: IPv6Cidr | None = Field(None, description="CIDR; its first address is the gateway.")
    bridge: str | None = Field(
        None,
        min_length=1,
        max_length=15,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Type bridge: name of the hosts' bridge device.",
    )
    interface: str | None = Field(
        None,
        min_length=1,
        max_length=15,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Type vlan: name of the hosts' interface, the same on each.",
    )
    vlan: int | None = Field(
        None, ge=1, le=4094, description="Type vlan: its id (IEEE 802.1Q), unique on the interface."
    )
    mtu: int | None = Field(
        None,
        ge=_LEAST_MTU,
        le=9216,
        description="Largest packet, in bytes. Default: 1500, or what the tunnels of all hosts "
        "carry if that is less and the type is overlay.",
    )


def list_(context: Context, query: ListQuery) -> Page[Network]:
    """Networks of the projects that may be seen, and the shared ones."""
    return context.uow.networks.list(query)


def find(context: Context, reference: str) -> Network:
    """A network of the context's project, or a shared one; without a project, a shared one.

    :raises NotFound: there is none.
    """
    if context.project is None:
        shared = context.uow.networks.find_shared(reference)
        if shared is None:
            raise NotFound(f"there is no network {reference!r} that all projects share")
        return shared
    network = context.uow.networks.find(context.own_project.id, reference)
    if network is None:
        raise NotFound(f"there is no network {reference!r} in this project or shared by all")
    return network


def lock(context: Context, reference: str, action: Action) -> Network:
    """The same, to be changed. For a shared one, its own action must be allowed too.

    :raises Forbidden: it is shared, and the principal's role is not global.
    """
    found = find(context, reference)
    what = f"network {reference!r}"
    if found.project_id is None:
        context.require(_SHARED_ACTIONS[action], None, f"the shared {what}")
    return context.for_change(context.uow.networks, found, what)


def create(context: Context, fields: NetworkCreate) -> Network:
    """A new network in the context's project; without a project, one that all share.

    :raises InvalidRequest: the fields do not fit each other.
    :raises Conflict: its addresses overlap with those of another network, or no host's tunnel
        carries packets of an overlay that are so large.
    """
    _check_fit(fields)
    if fields.type is NetworkType.VLAN:  # whoever chooses ids reaches every VLAN of the wire
        context.require(Action.SHARED_NETWORKS_CREATE, None, "networks of type vlan")
    # Two networks that are made at the same time must not overlap either: one after the other.
    context.uow.settings.set("networks_changed_at", context.now.isoformat())
    for field in ("ipv4", "ipv6"):
        _refuse_overlap(context, getattr(fields, field), field)
    identity = new_id()
    is_overlay = fields.type is NetworkType.OVERLAY
    network = Network(
        id=identity,
        project_id=context.project.id if context.project else None,
        created_at=context.now,
        vni=choose_vni(identity, context.uow.networks.vnis()) if is_overlay else None,
        **{**dict(fields), "mtu": _mtu(context, fields)},
    )
    context.uow.networks.add(network)
    context.record("network.created", network, f"network {network.name} was created")
    return network


def _mtu(context: Context, fields: NetworkCreate) -> int:
    if fields.type is not NetworkType.OVERLAY:
        return fields.mtu or _USUAL_MTU
    carried = [mtu for host in context.uow.hosts.all() if (mtu := carried_mtu(host))]
    if fields.mtu is None:
        return max(_LEAST_MTU, min((_USUAL_MTU, *(carried or [overlay_mtu("", _USUAL_MTU)]))))
    if carried and fields.mtu > max(carried):
        raise Conflict(
            f"packets of {fields.mtu} bytes do not fit through any host's tunnel: the largest "
            f"that one carries are of {max(carried)} bytes",
            code="mtu_too_large",
            field="mtu",
            hint="leave mtu out, or raise the MTU of the hosts' network first",
        )
    return fields.mtu


def _check_fit(fields: NetworkCreate) -> None:
    is_bridge = fields.type is NetworkType.BRIDGE
    if is_bridge != (fields.bridge is not None):
        raise InvalidRequest(
            "bridge names the hosts' device, for networks of type bridge and no others",
            field="bridge",
            hint="name the bridge" if is_bridge else "leave it out, or set type to bridge",
        )
    for name in ("interface", "vlan"):
        if (fields.type is NetworkType.VLAN) != (getattr(fields, name) is not None):
            raise InvalidRequest(
                f"{name} is for networks of type vlan, which need it, and for no others",
                field=name,
                hint="give type vlan with interface and vlan, or none of them",
            )
    if fields.ipv4 is None and fields.ipv6 is None:
        raise InvalidRequest(
            "a network needs addresses: ipv4, ipv6 or both",
            field="ipv4",
            hint="such as 10.20.0.0/16",
        )
    if not is_routed(fields.type):
        return
    for name in ("ipv4", "ipv6"):
        cidr = getattr(fields, name)
        if cidr is not None and not _is_private(cidr):
            raise InvalidRequest(
                f"{cidr} is not private, but hosts translate addresses of {fields.type} networks",
                field=name,
                hint="use a network inside " + ", ".join(str(network) for network in _PRIVATE),
            )


def _is_private(cidr: str) -> bool:
    network: Any = ipaddress.ip_network(cidr)
    return any(network.version == p.version and network.subnet_of(p) for p in _PRIVATE)


def _refuse_overlap(context: Context, cidr: str | None, field: str) -> None:
    if cidr is None:
        return
    wanted = ipaddress.ip_network(cidr)
    for other in _every_network(context):
        theirs = getattr(other, field)
        if theirs is None or not wanted.overlaps(ipaddress.ip_network(theirs)):
            continue
        known = other.project_id is None or context.shows(other.project_id)
        whose = f"network {other.name!r} ({theirs})" if known else "a network of another project"
        raise Conflict(
            f"{cidr} overlaps with {whose}",
            code="addresses_overlap",
            field=field,
            hint="choose other addresses: see 'virtmgr network list'",
        )


def _every_network(context: Context) -> Iterator[Network]:
    cursor = None
    while True:
        page = context.uow.networks.list(ListQuery(limit=500, cursor=cursor))
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def update(context: Context, network: Network, fields: NetworkFields) -> Network:
    """Set the fields of a locked network; DNS names change with it."""
    network.name, network.dns_domain = fields.name, fields.dns_domain
    network.labels = dict(fields.labels)
    network.revision += 1
    announce(context.services, context.uow, [network.id])
    context.record("network.updated", network, f"network {network.name} was changed")
    context.uow.flush()
    return network


def delete(context: Context, reference: str) -> Network:
    """Delete a network that no workload has a NIC on.

    :raises Conflict: some have; they are named.
    """
    network = lock(context, reference, Action.NETWORKS_DELETE)
    users = [member.name for member in context.uow.networks.names([network.id])]
    refuse_in_use(f"network {network.name!r}", workload=sorted(set(users)))
    context.record("network.deleted", network, f"network {network.name} was deleted")
    context.uow.networks.remove(network)
    context.uow.flush()
    return network


def addresses(context: Context, query: ListQuery) -> Page[Address]:
    """The reserved addresses of a network."""
    return context.uow.addresses.list(query)
