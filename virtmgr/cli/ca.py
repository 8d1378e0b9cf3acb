"""``ca``: the private CA, and its change for another one."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli.command import confirm, dry_run_option, group, output_option, yes_option
from virtmgr.cli.crud import finish
from virtmgr.cli.output import aligned, local_time, show_item, until
from virtmgr.cli.session import Session, pass_session

_PHASES = {
    "steady": "there is one CA; 'virtmgr ca rotate' changes it for another one",
    "spreading": "the next CA is being made known; it issues once every host that speaks trusts it",
    "replacing": "the next CA issues, the one before is still trusted; 'virtmgr ca retire' ends it",
}


@group("ca")
def ca() -> None:
    """The private CA: who hosts and the control plane know each other by."""


@ca.command("show")
@click.option("--certificate", is_flag=True, help="Only what clients are to trust, in PEM.")
@output_option
@pass_session
def show(session: Session, certificate: bool) -> None:
    """Show which CAs are trusted, and where a change of them is."""
    found = session.client.get("/ca")
    if certificate:
        click.echo(found["certificate"], nl=False)
    elif session.output in ("json", "yaml"):
        show_item(session, found)
    else:
        _tell(found)


@ca.command("rotate")
@dry_run_option
@output_option
@pass_session
def rotate(session: Session, dry_run: bool) -> None:
    """Change the CA for another one: make the next one, and let it be made known.

    Hosts are told at their next sync. Once every host that is not silent trusts the next CA, it
    issues, and hosts get new certificates by themselves. 'virtmgr ca retire' ends it.
    """
    answer = session.client.post("/ca/rotate", None, {"dry_run": dry_run or None})
    finish(session, answer, "the next CA is being made known: 'virtmgr ca show' says how far it is")


@ca.command("retire")
@click.option("--force", is_flag=True, help="Although hosts depend on it: they are cut off.")
@dry_run_option
@yes_option
@output_option
@pass_session
def retire(session: Session, force: bool, dry_run: bool, yes: bool) -> None:
    """Trust the CA of before no more; refused while hosts depend on it.

    Clients that know only the CA of before are refused from then on: 'virtmgr context refresh-ca'
    gives them the new one beforehand.
    """
    if not dry_run:
        confirm("Trust the CA of before no more?", yes=yes)
    query = {"dry_run": dry_run or None, "force": force or None}
    finish(session, session.client.post("/ca/retire", None, query), "there is one CA again")


def _tell(found: Any) -> None:
    click.echo(f"{found['phase']}: {_PHASES[found['phase']]}")
    rows = [
        (
            each["fingerprint"][:16],
            "yes" if each["issues"] else "no",
            local_time(each["begins_at"]),
            until(each["expires_at"]),
        )
        for each in found["authorities"]
    ]
    click.echo(aligned(("CA", "ISSUES", "SINCE", "ENDS-IN"), rows))
    if found["waits_for"]:
        click.echo("it waits for:")
        waiting = [(each["host"], each["reason"]) for each in found["waits_for"]]
        click.echo(aligned(("HOST", "WHY"), waiting))
