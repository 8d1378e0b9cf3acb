"""Routes of networks and their addresses."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.merge_patch import Patch
from virtmgr.api.routing import Route, change, create, delete, read
from virtmgr.api.schemas.networks import (
    AddressView,
    NetworkView,
    TopologyView,
    network_presenter,
    present_addresses,
    topology_presenter,
)
from virtmgr.domain.access import Action
from virtmgr.domain.network import Network, NetworkType
from virtmgr.ports.unit_of_work import Page
from virtmgr.services import networks, projects
from virtmgr.services.context import Context
from virtmgr.services.networks import NetworkCreate, NetworkFields


class NetworkParameters(ListParameters):
    """Filters of the list in a project."""

    type: NetworkType | None = Field(None, description="nat, bridge or overlay.")


class AllNetworkParameters(NetworkParameters):
    """Filters of the list of all that may be seen."""

    project: str | None = Field(None, max_length=128, description="Project, by name or id.")


class AddressParameters(ListParameters):
    """Filters of the list of addresses."""

    address: str | None = Field(None, max_length=45, description="Only this one.")


def _answer(context: Context, network: Network) -> Answer[NetworkView]:
    view = network_presenter(context.uow)(network)
    below = f"/projects/{context.project.id}" if context.project else ""
    return Answer(view, network.version, f"{below}/networks/{network.id}")


def list_all(context: Context, query: AllNetworkParameters) -> Answer[Listing[NetworkView]]:
    """List all networks that may be seen, shared ones included"""
    return _list(context, query, query.project)


def list_(context: Context, query: NetworkParameters) -> Answer[Listing[NetworkView]]:
    """List the networks that a project may use, shared ones included"""
    return _list(context, query, None)


def _list(
    context: Context, query: NetworkParameters, project: str | None
) -> Answer[Listing[NetworkView]]:
    page = _page(context, query, project)
    return listing(page, network_presenter(context.uow, page.items))


def _page(context: Context, query: NetworkParameters, project: str | None) -> Page[Network]:
    asked = query.query(project_ids=projects.scope(context, project))
    filters = {name: value for name, value in asked.filters.items() if name != "project"}
    return networks.list_(context, replace(asked, filters=filters))


def make(context: Context, body: NetworkCreate) -> Answer[NetworkView]:
    """Make a network in a project"""
    return _answer(context, networks.create(context, body))


def make_shared(context: Context, body: NetworkCreate) -> Answer[NetworkView]:
    """Make a network that all projects share"""
    return _answer(context, networks.create(context, body))


def show(context: Context, network: str) -> Answer[NetworkView]:
    """Show a network of a project, or a shared one"""
    return _answer(context, networks.find(context, network))


def patch(context: Context, network: str, patch: Patch[NetworkFields]) -> Answer[NetworkView]:
    """Change a network's name, DNS domain or labels (JSON merge patch)"""
    found = networks.lock(context, network, Action.NETWORKS_UPDATE)
    current = NetworkFields.model_validate(found, from_attributes=True)
    return _answer(context, networks.update(context, found, patch.apply(current)))


def remove(context: Context, network: str) -> Answer[NetworkView]:
    """Delete a network that nothing uses"""
    return _answer(context, networks.delete(context, network))


def list_addresses(
    context: Context, network: str, query: AddressParameters
) -> Answer[Listing[AddressView]]:
    """List the reserved addresses of a network"""
    found = networks.find(context, network)
    page = networks.addresses(context, query.query(network=found.id))
    views = present_addresses(context.uow, page.items, context.visible)
    return listing(page, lambda address: views[address.id])


def list_topology(context: Context, query: AllNetworkParameters) -> Answer[Listing[TopologyView]]:
    """List networks with how many workloads of which hosts are on each"""
    page = _page(context, query, query.project)
    seen = projects.scope(context, query.project)
    return listing(page, topology_presenter(context.uow, page.items, seen))


_ALL = "/projects/{project}/networks"
_SHARED = "/networks/{network}"
_ONE = _ALL + "/{network}"

ROUTES: tuple[Route, ...] = (
    read("/networks", list_all, Action.NETWORKS_VIEW),
    create("/networks", make_shared, Action.SHARED_NETWORKS_CREATE),
    read(_SHARED, show, Action.SHARED_NETWORKS_VIEW),
    change("PATCH", _SHARED, patch, Action.SHARED_NETWORKS_UPDATE),
    delete(_SHARED, remove, Action.SHARED_NETWORKS_DELETE),
    read(_SHARED + "/addresses", list_addresses, Action.SHARED_NETWORKS_VIEW),
    read("/topology", list_topology, Action.NETWORKS_VIEW),
    read(_ALL, list_, Action.NETWORKS_VIEW),
    create(_ALL, make, Action.NETWORKS_CREATE),
    read(_ONE, show, Action.NETWORKS_VIEW),
    change("PATCH", _ONE, patch, Action.NETWORKS_UPDATE),
    delete(_ONE, remove, Action.NETWORKS_DELETE),
    read(_ONE + "/addresses", list_addresses, Action.NETWORKS_VIEW),
)
