"""The whole firewall of virtmgr's on one host, as one nftables transaction: a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload
from virtmgr.drivers.network import nft
from virtmgr.drivers.network.publications import Publication, publications
from virtmgr.drivers.network.routing import routing_table
from virtmgr.drivers.network.spoofing import spoofing_table

FAMILIES = ("inet", "bridge")


def ruleset(
    networks: Iterable[DesiredNetwork],
    workloads: Iterable[DesiredWorkload],
    *,
    published: Sequence[Publication] | None = None,
    table: str = "virtmgr",
) -> nft.Json:
    """Input for ``nft -j -f -`` that replaces both of virtmgr's tables by what these need.

    :param published: the ports to publish; by default every one that the workloads ask for.
    :param table: the tables' name.
    """
    networks, workloads = tuple(networks), tuple(workloads)
    if published is None:
        published = publications(networks, workloads)
    routing = routing_table(table, networks, published)
    spoofing = spoofing_table(table, networks, workloads)
    return {"nftables": [*routing.commands(), *spoofing.commands()]}


def removal(table: str) -> nft.Json:
    """Input for ``nft -j -f -`` that leaves nothing of virtmgr's tables."""
    return {
        "nftables": [
            command for family in FAMILIES for command in nft.Table(family, table).removal()
        ]
    }
