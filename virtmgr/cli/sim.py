"""``sim``: a simulated fleet, to see how the control plane does with thousands of hosts."""

from __future__ import annotations

from pathlib import Path

import click

from virtmgr.cli.admin import server_options, server_settings, telling
from virtmgr.cli.command import group

_directory = click.option(
    "--fleet",
    "fleet",
    metavar="DIRECTORY",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the simulated hosts' keys and certificates are kept.",
)


@group("sim")
def sim() -> None:
    """A simulated fleet: thousands of hosts in one process, for tests and measurements.

    Simulated hosts run nothing: their guests are imaginary. What they say to the control plane is
    what real hosts say, by the same protocol, over mutual TLS. They have the label simulated=true.
    Never enrol them where people run workloads: these may be placed on them.
    """


@sim.command("prepare")
@_directory
@click.option("--hosts", type=click.IntRange(1, 50_000), default=50, show_default=True)
@click.option("--cluster", default="default", show_default=True, help="Cluster that they join.")
@click.option("--prefix", default="sim", show_default=True, help="How their names begin.")
@server_options
def prepare(fleet: Path, hosts: int, cluster: str, prefix: str, **options: str | None) -> None:
    """Enrol simulated hosts, all at once, on the control plane's machine.

    It needs the database and the private CA, as 'virtmgr serve' does, which may run meanwhile.
    """
    from virtmgr import bootstrap

    with telling():
        bootstrap.prepare_simulation(
            server_settings(options), fleet, hosts, cluster, prefix, click.echo
        )
    click.echo(
        f"{hosts} SIMULATED hosts are enrolled; let them live: virtmgr sim run --fleet {fleet}"
    )


@sim.command("run")
@_directory
@click.option("--server", metavar="URL", help="Another address of the agents' listener.")
@click.option("--hosts", type=click.IntRange(1), help="Only so many of them. Default: all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of all that is by chance.")
@click.option(
    "--ramp", type=click.FloatRange(0), default=10.0, show_default=True,
    help="Seconds within which they come up.",
)  # fmt: skip
@click.option(
    "--pace", type=click.FloatRange(0), default=1.0, show_default=True,
    help="Factor on the time that steps take (starts, stops, images); 0: none.",
)  # fmt: skip
@click.option(
    "--failing", type=click.FloatRange(0, 1), default=0.0, show_default=True,
    help="Share of steps that fail.",
)  # fmt: skip
@click.option(
    "--crashes", type=click.FloatRange(0), default=0.0, show_default=True,
    help="How often a guest ends by itself, in an hour.",
)  # fmt: skip
@click.option(
    "--lose", metavar="COUNT@TIME[+TIME]", multiple=True,
    help="Hosts lose their power: 50@60s, or 50@1m+30s to boot again half a minute later.",
)  # fmt: skip
@click.option(
    "--partition", metavar="COUNT@TIME[+TIME]", multiple=True,
    help="Hosts reach the control plane no more, while their guests run on.",
)  # fmt: skip
@click.option(
    "--restart", metavar="COUNT@TIME", multiple=True,
    help="Agents are started again, at once: all@60s.",
)  # fmt: skip
@click.option("--lasts", type=click.FloatRange(0), help="Seconds. Default: until it is stopped.")
@click.option(
    "--every", type=click.FloatRange(0.1), default=10.0, show_default=True,
    help="Seconds between two lines of figures.",
)  # fmt: skip
@click.option(
    "--report", metavar="PATH", type=click.Path(dir_okay=False, path_type=Path),
    help="A file that figures are appended to, as lines of JSON.",
)  # fmt: skip
def run(
    fleet: Path,
    server: str | None,
    hosts: int | None,
    seed: int,
    ramp: float,
    pace: float,
    failing: float,
    crashes: float,
    lose: tuple[str, ...],
    partition: tuple[str, ...],
    restart: tuple[str, ...],
    lasts: float | None,
    every: float,
    report: Path | None,
) -> None:
    """Let simulated hosts live, until Ctrl-C.

    Lines of standard input let things happen meanwhile: 'lose COUNT [SECONDS]', 'partition COUNT
    [SECONDS]', 'restart COUNT', 'back' (all of them), 'status', 'quit'. COUNT may be 'all'.
    SIGUSR1 restarts all agents.
    """
    from virtmgr import bootstrap
    from virtmgr.sim.behaviour import Behaviour
    from virtmgr.sim.faults import Kind, parse
    from virtmgr.sim.fleet import Course

    given = {Kind.LOSE: lose, Kind.PARTITION: partition, Kind.RESTART: restart}
    faults = tuple(parse(kind, text) for kind, texts in given.items() for text in texts)
    click.echo("SIMULATED hosts: they run nothing, and their guests are imaginary")
    with telling():
        bootstrap.run_simulation(
            fleet,
            server=server,
            count=hosts,
            behaviour=Behaviour(seed=seed, failing=failing, crashes=crashes, pace=pace),
            course=Course(faults, ramp, lasts, every, seed, report),
            tell=click.echo,
        )
