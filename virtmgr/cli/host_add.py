"""``host add``, ``scan``, ``retry``, ``reinstall`` and ``renew-certificates``: hosts by ssh."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from virtmgr.cli.command import label_option, output_option, wait_options
from virtmgr.cli.hosts import NOUN, host
from virtmgr.cli.inventories import Machine, machine_at, machines_in
from virtmgr.cli.output import aligned, printable, show_item
from virtmgr.cli.secrets import read
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import operations_in, raise_first, report, settle, wait_for_all
from virtmgr.domain.errors import Conflict, InvalidRequest, VirtmgrError
from virtmgr.domain.ssh import fingerprint_of

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, allow_dash=True)
_AT_A_TIME = 8  # ssh servers that are looked at side by side
# Machines with slow mirrors take their time, and others wait for their turn.
_wait_options = partial(wait_options, seconds=3600)


def login_options(function: F) -> F:
    """How to log in. Secrets come from files or are asked for: others can see arguments."""
    options = (
        click.option("--user", "-u", help="Who logs in. Default: root."),
        click.option(
            "--port", type=click.IntRange(1, 65535), help="Of its ssh server. Default: 22."
        ),
        click.option(
            "--key-file",
            "-i",
            type=_FILE,
            help="A private key without passphrase; - for standard input.",
        ),
        click.option("--password-file", type=_FILE, help="The user's password, for ssh and sudo."),
        click.option("--ask-password", is_flag=True, help="Ask for it."),
        click.option("--become-password-file", type=_FILE, help="The password for sudo alone."),
        click.option("--ask-become-password", is_flag=True, help="Ask for it."),
        click.option(
            "--accept-new-host-key",
            "host_keys",
            multiple=True,
            metavar="SHA256:…",
            help="What its ssh server must show; may be repeated. Default: shown and asked about.",
        ),
        click.option(
            "--keep-credentials",
            is_flag=True,
            help="Let virtmgr keep them, encrypted, for later runs on the host.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@host.command("scan")
@click.argument("address")
@click.option("--port", type=click.IntRange(1, 65535), default=22, show_default=True)
@output_option
@pass_session
def scan(session: Session, address: str, port: int) -> None:
    """Show the keys of the ssh server at ADDRESS, as the control plane sees them.

    Compare one with what 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' says on the machine's
    own console.
    """
    answer = _scan(session, address, port)
    if session.output in ("json", "yaml"):
        show_item(session, answer)
        return
    for key in answer["keys"]:
        click.echo(f"{key['fingerprint']} {key['type']}")


@host.command("add")
@click.argument("addresses", metavar="[ADDRESS…]", nargs=-1)
@click.option("--name", help="Of the host. Default: the first part of ADDRESS.")
@click.option("--address", help="Where it is, if what you gave is only its name.")
@click.option(
    "--from-inventory",
    "inventory",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Machines of an inventory of Ansible, in YAML: group virtmgr_hosts, or all.",
)
@click.option("--cluster", help="Default: default.")
@click.option("--no-vms", is_flag=True, help="No libvirt and no QEMU: containers only.")
@label_option
@login_options
@_wait_options
@output_option
@pass_session
def add(
    session: Session,
    addresses: tuple[str, ...],
    name: str | None,
    address: str | None,
    inventory: Path | None,
    cluster: str | None,
    no_vms: bool,
    labels: dict[str, str],
    wait: bool,
    timeout: float,
    **given: Any,
) -> None:
    """Make machines hosts by ssh: everything that they need is installed on them.

    The control plane logs in, so it must reach them. A machine needs ssh, Python 3 and root or
    sudo. Its ssh key is shown first and asked about, unless it was given.
    """
    machines = _machines(addresses, name, address, inventory)
    given = given_secrets(given)
    machines = [
        machine.or_else(
            user=given["user"],
            port=given["port"],
            key_file=given["key_file"],
            password=given["password"],
            become_password=given["become_password"],
            cluster=cluster,
            vms=False if no_vms else None,
        )
        for machine in machines
    ]
    failures: list[VirtmgrError] = []
    keys = _agree(session, machines, given["host_keys"], failures)
    operations: list[Any] = []
    for machine in machines:
        if machine.name not in keys:
            continue
        try:
            body = _body(machine, labels, keys[machine.name], keep=given["keep_credentials"])
            # Not to be answered again: nothing that has secrets in it is kept, not even its hash.
            answer = session.client.post("/hosts", body, repeatable=False)
            operations += operations_in(answer)
        except VirtmgrError as error:
            error.message, error.field = f"host {machine.name}: {error.message}", None
            failures.append(error)
    if wait and operations:
        operations, failed = wait_for_all(session.client, operations, timeout)
        failures += failed
    if operations:
        report(session, operations, "is ready")
    raise_first(failures)


def _run_again(verb: str, help: str, done: str) -> None:
    @host.command(verb, help=help)
    @click.argument("name")
    @click.option("--address", help="Where it is now. Default: as before.")
    @login_options
    @_wait_options
    @output_option
    @pass_session
    def again(
        session: Session,
        name: str,
        address: str | None,
        wait: bool,
        timeout: float,
        **given: Any,
    ) -> None:
        body = again_body(name, address, given_secrets(given))
        answer = session.client.post(NOUN.path(session, name, verb), body, repeatable=False)
        settle(session, answer, wait=wait, timeout=timeout, done=done)


def again_body(name: str, address: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """What is asked of a host that virtmgr knows: what was given, and no more."""
    body: dict[str, Any] = {"address": address} if address else {}
    machine = Machine(
        name=name,
        address=address or name,
        port=given["port"],
        user=given["user"],
        key_file=given["key_file"],
        password=given["password"],
        become_password=given["become_password"],
    )
    if given["key_file"] is not None or given["password"] is not None:
        body["ssh"] = _ssh(machine)
    if given["host_keys"]:
        body["host_key"] = given["host_keys"][0]
    if given["keep_credentials"]:
        body["keep_credentials"] = True
    return body


_run_again("retry", "Go on where the installation of a host failed.", "is ready")
_run_again(
    "reinstall",
    "Let a host that lost its key or was installed anew join again; it stays the same host.",
    "is installed again",
)
_run_again(
    "renew-certificates", "Get a host a fresh certificate now, by ssh.", "has a new certificate"
)


def _machines(
    addresses: tuple[str, ...], name: str | None, address: str | None, inventory: Path | None
) -> list[Machine]:
    if (inventory is None) == (not addresses):
        raise click.UsageError("give machines by their addresses, or --from-inventory")
    if (name or address) and len(addresses) != 1:
        raise click.UsageError("--name and --address go with one machine")
    if inventory is None:
        if address is not None:
            return [Machine(name=name or addresses[0], address=address)]
        return [machine_at(each, name) for each in addresses]
    import yaml

    try:
        document = yaml.safe_load(inventory.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{inventory}: this is no YAML: {error}") from error
    return machines_in(document, inventory.parent)


def given_secrets(given: dict[str, Any]) -> dict[str, Any]:
    """The options with what their files have, or a person types."""
    found = dict(given)
    for name, prompt in (("password", "Password"), ("become_password", "Password for sudo")):
        file, ask = found.pop(f"{name}_file"), found.pop(f"ask_{name}")
        if ask and not sys.stdin.isatty():
            raise click.UsageError(f"nobody can be asked; give --{name.replace('_', '-')}-file")
        found[name] = None
        if file is not None:
            found[name] = read(file)
        elif ask:
            found[name] = click.prompt(prompt, hide_input=True, err=True)
    return found


def _scan(session: Session, address: str, port: int) -> Any:
    return session.client.post(
        "/hosts/scan-key", {"address": address, "port": port}, repeatable=False
    )


def _agree(
    session: Session,
    machines: Sequence[Machine],
    accepted: Sequence[str],
    failures: list[VirtmgrError],
) -> dict[str, str]:
    """The key of each machine's ssh server, by the machine's name: given, or confirmed."""
    keys = {
        each.name: fingerprint_of(each.host_key) for each in machines if each.host_key is not None
    }
    wanted = {fingerprint_of(each) for each in accepted}
    unknown = [each for each in machines if each.name not in keys]

    def shown(machine: Machine) -> list[Any] | VirtmgrError:
        # A client of its own: its connection is not for several threads.
        from virtmgr.cli.client import Client

        client = Client(session.context)
        try:
            body = {"address": machine.address, "port": machine.port or 22}
            return list(client.post("/hosts/scan-key", body, repeatable=False)["keys"])
        except VirtmgrError as error:
            return error
        finally:
            client.close()

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        found = dict(zip([each.name for each in unknown], pool.map(shown, unknown), strict=True))
    asked: dict[str, Any] = {}
    for name, answer in found.items():
        if isinstance(answer, VirtmgrError):
            answer.message = f"host {name}: {answer.message}"
            failures.append(answer)
        elif match := [key["fingerprint"] for key in answer if key["fingerprint"] in wanted]:
            keys[name] = match[0]
        elif wanted:
            failures.append(_other_key(name, answer))
        else:
            asked[name] = answer[0]
    if asked:
        keys |= _confirmed(asked)
    return keys


def _other_key(name: str, shown: Sequence[Any]) -> Conflict:
    fingerprints = ", ".join(key["fingerprint"] for key in shown)
    return Conflict(
        f"host {name}: its ssh server shows {fingerprints}, none of which was accepted",
        code="host_key_changed",
        hint="compare on the machine's own console, then give the right one with "
        "--accept-new-host-key",
    )


def _confirmed(shown: dict[str, Any]) -> dict[str, str]:
    """Ask once about all that nobody has agreed to yet."""
    rows = [
        [printable(each) for each in (name, key["fingerprint"], key["type"])]
        for name, key in shown.items()
    ]
    click.echo(aligned(["HOST", "KEY", "TYPE"], rows), err=True)
    if not somebody_is_there():
        raise click.UsageError(
            "these keys are not known, and nobody is there to say that they are right; give "
            "--accept-new-host-key SHA256:…"
        )
    click.confirm(
        "Are these the keys of the machines? Compare with 'ssh-keygen -lf "
        "/etc/ssh/ssh_host_ed25519_key.pub' on their consoles",
        abort=True,
        err=True,
    )
    return {name: key["fingerprint"] for name, key in shown.items()}


def somebody_is_there() -> bool:
    """Whether a person can be shown something and asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _body(machine: Machine, labels: dict[str, str], host_key: str, *, keep: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": machine.name,
        "address": machine.address,
        "ssh": _ssh(machine),
        "host_key": host_key,
    }
    if machine.labels or labels:
        body["labels"] = {**labels, **machine.labels}
    if machine.cluster is not None:
        body["cluster"] = machine.cluster
    if machine.vms is not None:
        body["vms"] = machine.vms
    if keep:
        body["keep_credentials"] = True
    return body


def _ssh(machine: Machine) -> dict[str, Any]:
    if machine.key_file is None and machine.password is None:
        raise InvalidRequest(
            "there is no way to log in",
            code="credentials_needed",
            hint="give --key-file FILE, --password-file FILE or --ask-password",
        )
    found = {
        "user": machine.user,
        "port": machine.port,
        "private_key": None if machine.key_file is None else _key(machine.key_file),
        "password": machine.password,
        "become_password": machine.become_password,
    }
    return {name: value for name, value in found.items() if value is not None}


def _key(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    return file.read_text(encoding="utf-8")
