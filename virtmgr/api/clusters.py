"""Routes of clusters."""

from __future__ import annotations

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.merge_patch import Patch
from virtmgr.api.routing import Route, change, create, delete, read
from virtmgr.api.schemas.clusters import ClusterView, ShownClusterView
from virtmgr.domain.access import Action
from virtmgr.domain.host import Cluster
from virtmgr.services import clusters
from virtmgr.services.clusters import ClusterFields
from virtmgr.services.context import Context

present = ClusterView.model_validate


def _answer(cluster: Cluster) -> Answer[ClusterView]:
    return Answer(present(cluster), cluster.version, f"/clusters/{cluster.id}")


def list_(context: Context, query: ListParameters) -> Answer[Listing[ClusterView]]:
    """List clusters"""
    return listing(clusters.list_(context, query.query()), present)


def make(context: Context, body: ClusterFields) -> Answer[ClusterView]:
    """Make a cluster"""
    return _answer(clusters.create(context, body))


def show(context: Context, cluster: str) -> Answer[ShownClusterView]:
    """Show a cluster, with how many of its hosts may fail"""
    found = clusters.find(context, cluster)
    survives = clusters.survives(context, found)
    shown = ShownClusterView(**dict(present(found)), survives=survives)
    return Answer(shown, found.version, f"/clusters/{found.id}")


def patch(context: Context, cluster: str, patch: Patch[ClusterFields]) -> Answer[ClusterView]:
    """Change a cluster (JSON merge patch)"""
    found = clusters.lock(context, cluster)
    current = ClusterFields.model_validate(found, from_attributes=True)
    return _answer(clusters.update(context, found, patch.apply(current)))


def remove(context: Context, cluster: str) -> Answer[ClusterView]:
    """Delete a cluster that has no hosts"""
    return _answer(clusters.delete(context, cluster))


_ONE = "/clusters/{cluster}"

ROUTES: tuple[Route, ...] = (
    read("/clusters", list_, Action.CLUSTERS_VIEW),
    create("/clusters", make, Action.CLUSTERS_CREATE),
    read(_ONE, show, Action.CLUSTERS_VIEW),
    change("PATCH", _ONE, patch, Action.CLUSTERS_UPDATE),
    delete(_ONE, remove, Action.CLUSTERS_DELETE),
)
