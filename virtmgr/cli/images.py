"""``image``: what workloads start from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from virtmgr.cli import secrets
from virtmgr.cli.command import (
    dry_run_option,
    group,
    label_changes,
    label_option,
    output_option,
    project_option,
    wait_options,
    workload_argument,
)
from virtmgr.cli.crud import ID, LABELS, Noun, add_delete, add_list, add_show, finish
from virtmgr.cli.output import Item, age, column, show_item, show_items, size
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.uploads import upload
from virtmgr.cli.waiting import is_dry_run, settle
from virtmgr.domain.errors import InvalidRequest

NOUN = Noun(
    "image",
    "images",
    (
        column("NAME", "name"),
        column("TYPE", "type"),
        column("STATE", "state"),
        column("SIZE", "size", shown=size),
        column("ALIASES", "aliases"),
        column("AGE", "created_at", shown=age),
        column("SOURCE", "source", wide=True),
        column("DIGEST", "digest", wide=True),
        LABELS,
        ID,
    ),
    warning="Hosts drop their copies once no workload needs them.",
)
_OFFERS = (
    column("ALIAS", "alias"),
    column("TYPE", "type"),
    column("ARCHITECTURE", "architecture"),
    column("VERSION", "version"),
    column("SIZE", "size", shown=size),
    column("DESCRIPTION", "description"),
    column("ALIASES", "aliases", wide=True),
)
_MOST_OFFERS = 500  # of a server; the API tells no more at a time


@group("image")
def image() -> None:
    """Images: what workloads start from."""


add_list(image, NOUN, "type", "state")
add_show(image, NOUN)
add_delete(image, NOUN)


@image.command("import")
@click.argument("source")
@click.option("--name", "-n", help="Default: from the source.")
@click.option("--format", "format_", metavar="FORMAT", help="Default: found by looking at it.")
@click.option("--checksum", metavar="sha256:HEX", help="Refuse the content of a URL otherwise.")
@click.option(
    "--init", type=click.Choice(["app", "system"]), help="Containers. Default: by content."
)
@click.option(
    "--insecure-registry",
    is_flag=True,
    help="Allow plain HTTP, or a certificate that nobody vouches for.",
)
@click.option("--username", help="For the registry.")
@click.option(
    "--password-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="For --username; - for standard input. Default: asked for.",
)
@click.option("--alias", "aliases", multiple=True, help="Another name; may be repeated.")
@label_option
@wait_options
@output_option
@pass_session
def import_image(
    session: Session,
    source: str,
    name: str | None,
    format_: str | None,
    checksum: str | None,
    init: str | None,
    insecure_registry: bool,
    username: str | None,
    password_file: Path | None,
    aliases: tuple[str, ...],
    labels: dict[str, str],
    wait: bool,
    timeout: float,
) -> None:
    """Import an image from a file or OCI layout here, a URL or a registry.

    \b
    virtmgr image import ./debian.qcow2 --name debian
    virtmgr image import docker://docker.io/library/nginx:1.27 --alias nginx
    virtmgr image import https://example.org/disk.qcow2 --checksum sha256:…
    virtmgr image import docker://registry.example/a@sha256:… --username ci --password-file token
    virtmgr image import simplestreams:https://images.linuxcontainers.org#debian/12
    """
    name = name or name_from_source(source)
    body: dict[str, Any] = {"name": name, "format": format_, "init": init}
    if "://" in source:
        body |= {"source": source, "checksum": checksum}
        body |= {"insecure_registry": insecure_registry}
        if username:
            password = registry_password(username, password_file)
            body["registry_auth"] = {"username": username, "password": password}
        answer = session.client.post("/images/import", {k: v for k, v in body.items() if v})
    else:
        with local_file(source) as file:
            if checksum:
                check_file(file, checksum)
            body["source"] = upload(session, file)
        answer = session.client.post("/images/import", {k: v for k, v in body.items() if v})
    settle(session, answer, wait=wait, timeout=timeout)
    if aliases or labels:
        patch = {"aliases": list(aliases) or None, "labels": labels or None}
        path = NOUN.path(session, name)
        session.client.patch(path, {k: v for k, v in patch.items() if v})


@image.command("inspect")
@click.argument("name")
@output_option
@pass_session
def inspect(session: Session, name: str) -> None:
    """Show what an image is made of, how it was made, and which workloads use it."""
    found = session.client.fetch(NOUN.path(session, name)).value
    users = [
        f"{workload['project']['name']}/{workload['name']}"
        for filter_ in ("image", "cdrom")
        for workload in session.client.pages("/workloads", {filter_: found["id"]})
    ]
    show_item(session, inspected(found, users))


@image.command("search")
@click.argument("server")
@click.argument("words", nargs=-1)
@output_option
@pass_session
def search_images(session: Session, server: str, words: tuple[str, ...]) -> None:
    """List what an image server of LXD or Incus has; the control plane asks it.

    \b
    virtmgr image search https://images.linuxcontainers.org debian 12
    """
    address = server.removeprefix("simplestreams:").partition("#")[0].rstrip("/")
    body = {"server": address, "words": list(words), "limit": _MOST_OFFERS}
    found = session.client.post("/images/search", body)
    show_items(session, found["items"], _OFFERS)
    if found["total"] > len(found["items"]):
        more = found["total"] - len(found["items"])
        click.echo(f"{more} more are not shown: give more words", err=True)


@image.command("build")
@click.argument("distribution")
@click.option("--suite", help="Such as bookworm. Default: the distribution's stable one.")
@click.option("--kind", type=click.Choice(["vm", "container"]), default="container")
@click.option(
    "--init", type=click.Choice(["app", "system"]), help="Containers. Default: the distribution's."
)
@click.option("--name", "-n", help="Default: DISTRIBUTION-SUITE, for VMs with -vm.")
@wait_options
@output_option
@pass_session
def build(
    session: Session,
    distribution: str,
    suite: str | None,
    kind: str,
    init: str | None,
    name: str | None,
    wait: bool,
    timeout: float,
) -> None:
    """Build an image from a distribution's mirror.

    \b
    virtmgr image build debian --suite bookworm
    virtmgr image build debian --suite bookworm --kind vm
    """
    parts = [distribution, *([suite] if suite else []), *(["vm"] if kind == "vm" else [])]
    body: dict[str, Any] = {
        "name": name or "-".join(parts),
        "distribution": distribution,
        "kind": kind,
    }
    if suite:
        body["suite"] = suite
    if init:
        body["init"] = init
    settle(session, session.client.post("/images/build", body), wait=wait, timeout=timeout)


@image.command("publish")
@workload_argument
@click.argument("image_name", metavar="NAME")
@click.option("--alias", "aliases", multiple=True, help="Another name; may be repeated.")
@label_option
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def publish(
    session: Session,
    name: str,
    image_name: str,
    aliases: tuple[str, ...],
    labels: dict[str, str],
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    """Make image NAME from a stopped workload, as its disk is now.

    All of its files are in the image, secrets too. Volumes are not.

    \b
    virtmgr stop web1
    virtmgr image publish web1 web-golden
    virtmgr create web2 --kind container --image web-golden
    """
    body = {"name": image_name, "aliases": list(aliases), "labels": labels}
    path = f"{session.path('workloads', name)}/publish"
    answer = session.client.post(path, body, {"dry_run": dry_run or None})
    settle(session, answer, wait=wait, timeout=timeout)


@image.command("prune")
@click.option("--host", metavar="HOST", help="Only on this host. Default: everywhere.")
@dry_run_option
@output_option
@pass_session
def prune(session: Session, host: str | None, dry_run: bool) -> None:
    """Remove what is not needed: images of hosts that none of their workloads uses, and blobs.

    Hosts also remove such images by themselves after a while.
    """
    body = {"host": host} if host else {}
    answer = session.client.post("/images/prune", body, {"dry_run": dry_run or None})
    found = answer["would"] if is_dry_run(answer) else answer
    if session.output in ("json", "yaml"):
        show_item(session, found)
        return
    for line in pruned_lines(found):
        click.echo(line)
    click.echo(f"{size(found['size'])} {'would be' if dry_run else 'are being'} freed")


def pruned_lines(found: Item) -> Iterator[str]:
    """What a prune removes, a line for each host and one for the control plane. Pure."""
    for each in found["hosts"]:
        images = ", ".join(f"{image['name']} ({size(image['size'])})" for image in each["images"])
        yield f"host {each['host']['name']}: {images}"
    store = found["store"]
    if store is not None and store["busy"]:
        yield "control plane: images are being made; try again when they are done"
    elif store is not None and store["blobs"] + store["leftovers"]:
        counts = f"{store['blobs']} unused blobs, {store['leftovers']} leftovers of uploads"
        yield f"control plane: {counts} ({size(store['size'])})"


@image.command("edit")
@click.argument("name")
@click.option("--rename", metavar="NAME", help="Its new name.")
@click.option("--description", help="What it is for; '' takes it away.")
@click.option("--protected/--no-protected", default=None, help="Refuse to delete it, or allow it.")
@label_option
@dry_run_option
@output_option
@pass_session
def edit(
    session: Session,
    name: str,
    rename: str | None,
    description: str | None,
    protected: bool | None,
    labels: dict[str, str],
    dry_run: bool,
) -> None:
    """Change an image's name, description, protection or labels (KEY= takes a label away).

    \b
    virtmgr image edit debian --description "for the web tier" --protected
    """
    given = {"name": rename, "description": description, "protected": protected}
    patch: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if labels:
        patch["labels"] = label_changes(labels)
    if not patch:
        raise click.UsageError("say what to change")
    answer = session.client.patch(NOUN.path(session, name), patch, {"dry_run": dry_run or None})
    finish(session, answer, f"image {name} updated")


@image.command("alias")
@click.argument("name")
@click.argument("aliases", nargs=-1)
@click.option("--remove", "-d", multiple=True, metavar="ALIAS", help="Take an alias away.")
@output_option
@pass_session
def alias(session: Session, name: str, aliases: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Give an image more names, or take some away; show what it has."""
    path = NOUN.path(session, name)
    found = session.client.fetch(path)
    before = list(found.value.get("aliases") or [])
    after = [each for each in dict.fromkeys([*before, *aliases]) if each not in remove]
    if after != before:
        session.client.patch(path, {"aliases": after}, etag=found.etag)
    finish(session, {"name": name, "aliases": after}, "\n".join(after) or "no aliases")


def inspected(image: dict[str, Any], users: list[str]) -> dict[str, Any]:
    """What ``inspect`` shows; parts that an image of its type does not have are left out. Pure."""
    manifest = image.get("manifest") or {}
    parts = ("layers", "config", "disk", "kernel", "history", "registry_digest")
    shown = ("name", "type", "state", "failure", "source", "architecture", "digest", "size")
    return {
        **{key: image[key] for key in shown if image.get(key) is not None},
        **{key: manifest[key] for key in parts if manifest.get(key)},
        "used_by": sorted(set(users)),
    }


def registry_password(username: str, file: Path | None) -> str:
    """From a file or a person; never VIRTMGR_PASSWORD, which is for virtmgr's own server."""
    if file is not None:
        return secrets.read(file)
    prompt = f"Password of {username} for the registry"
    return str(click.prompt(prompt, hide_input=True, err=True))


def name_from_source(source: str) -> str:
    """A name for an image after where it comes from: without directories and extensions. Pure."""
    if source.startswith("simplestreams:"):
        source = source.partition("#")[2].replace("/", "-")
    last = source.rstrip("/").rpartition("/")[2].partition("@")[0].partition("?")[0].lower()
    last = re.sub(r"\.(tar(\.\w+)?|tgz|txz|qcow2|img|raw|iso|xz|gz|zst)$", "", last)
    name = re.sub(r"[^a-z0-9.:_-]+", "-", last).strip(".:_-")
    return name or "image"


@contextmanager
def local_file(source: str) -> Iterator[Path]:
    """The file to upload; a directory (an OCI layout) is packed into one for the time being.

    :raises InvalidRequest: there is neither.
    """
    path = Path(source)
    if path.is_file():
        yield path
    elif (path / "oci-layout").is_file():
        import tarfile
        import tempfile

        with tempfile.TemporaryDirectory(prefix="virtmgr-") as directory:
            packed = Path(directory) / f"{path.resolve().name}.tar"
            with tarfile.open(packed, "w") as tar:
                tar.add(path, ".")
            yield packed
    else:
        raise InvalidRequest(
            f"cannot import {source}: it is neither a file nor a directory with an OCI layout",
            field="source",
            hint="an image of a registry is named docker://HOST/NAME:TAG",
        )


def check_file(path: Path, checksum: str) -> None:
    """Compare a file with the checksum that was given for it.

    :raises ImageError: it does not match.
    """
    import hashlib

    from virtmgr.domain.errors import ImageError

    with path.open("rb") as file:
        found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if found != checksum.lower():
        raise ImageError(f"{path} is {found}, not {checksum}", field="checksum")
