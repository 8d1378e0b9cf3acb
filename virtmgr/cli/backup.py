"""``virtmgr backup`` and ``virtmgr restore``: the whole control plane, on its own machine."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from virtmgr.cli.admin import server_options, server_settings, telling
from virtmgr.cli.command import command
from virtmgr.config.settings import BackedUp


@command("backup")
@server_options
@click.argument("file", metavar="FILE")
@click.option("--images", is_flag=True, help="Images' blobs too, which may be large.")
@click.option("--yes", "-y", is_flag=True, help="Replace FILE if it is there.")
def backup(file: str, images: bool, yes: bool, **options: str | None) -> None:
    """Keep the whole control plane in FILE: database, CA, credentials for registries.

    It may run meanwhile: FILE holds one moment. It holds every secret of the control plane, so only
    its owner may read it; keep it as safe as the control plane itself.
    """
    from virtmgr import bootstrap

    with telling():
        made = bootstrap.back_up(
            server_settings(options), Path(file).absolute(), images=images, replace=yes
        )
    _show(made)


@command("restore")
@server_options
@click.argument("file", metavar="FILE")
@click.option("--yes", "-y", is_flag=True, help="Replace database and CA if they are there.")
def restore(file: str, yes: bool, **options: str | None) -> None:
    """Make the control plane what it was when FILE was made by 'virtmgr backup'.

    Stop 'virtmgr serve' first. The database may be of another kind than it was. Hosts go on with
    the certificates that they had then. What was made since is unknown to the control plane, and
    hosts REMOVE workloads that are unknown to it: see docs/scale-out.md before you start it.
    """
    from virtmgr import bootstrap

    with telling():
        made = bootstrap.restore(server_settings(options), Path(file).absolute(), replace=yes)
    _show(made)
    click.echo(f"restored what there was at {made.made_at}; now run 'virtmgr serve'", err=True)


def _show(made: BackedUp) -> None:
    show_tables(made.tables)
    blobs = f"{made.images} blobs of images, {made.image_bytes} bytes"
    click.echo("\n".join([*made.files, *([blobs] if made.images else ["no images"])]))


def show_tables(tables: Iterable[tuple[str, int, str]]) -> None:
    """Each table's rows and checksum."""
    for name, rows, sha256 in tables:
        sys.stdout.write(f"{name:<20} {rows:>9} rows  {sha256}\n")
    sys.stdout.flush()
