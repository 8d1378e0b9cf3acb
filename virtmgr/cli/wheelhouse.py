"""``wheelhouse`` and ``collection``: what Ansible needs to enrol hosts."""

from __future__ import annotations

from pathlib import Path

import click

from virtmgr.cli.command import command


@command("wheelhouse")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--python",
    "pythons",
    metavar="VERSION",
    multiple=True,
    help="A Python that hosts have. May be repeated. Default: 3.11, 3.12 and 3.13.",
)
def wheelhouse(directory: Path, pythons: tuple[str, ...]) -> None:
    """Make what hosts install their agent from, so that they need no internet for it.

    DIRECTORY is then the variable virtmgr_wheelhouse of the Ansible collection. Packages come from
    the package index that pip uses here, and are checked against digests that virtmgr carries.
    """
    from virtmgr import bootstrap

    release = bootstrap.wheelhouse(directory, pythons, lambda said: click.echo(said, err=True))
    click.echo(release)


@command("collection")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def collection(directory: Path) -> None:
    """Put the Ansible collection virtmgr.core where Ansible finds it.

    DIRECTORY is one of Ansible's collections paths, such as ~/.ansible/collections.
    """
    from virtmgr import bootstrap

    click.echo(bootstrap.collection(directory))
