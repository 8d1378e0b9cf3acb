"""Usage: what a workload takes of its host, as it goes on.

The API keeps the latest measurement only; the page's script keeps those that it has seen.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, g, jsonify, render_template

blueprint = Blueprint("usage", __name__, url_prefix="/projects/<project>/workloads/<workload>")

_ONE: Final = "/projects/{project}/workloads/{workload}"


@blueprint.get("/usage")
def show(project: str, workload: str) -> str:
    """The page with the charts."""
    found = g.rest.get(_ONE, project=project, workload=workload).document
    return render_template("usage/show.html", workload=found, tab="usage")


@blueprint.get("/usage/now")
def now(project: str, workload: str) -> Response:
    """The latest measurement, and within which limits the workload is."""
    found = g.rest.get(_ONE, project=project, workload=workload).document
    resources = found["spec"]["resources"]
    return jsonify(
        state=found["status"]["state"],
        usage=found["status"].get("usage"),
        vcpus=resources.get("vcpus"),
        memory=resources.get("memory"),
        disk=resources.get("disk"),
    )
