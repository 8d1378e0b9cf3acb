"""The switch: the namespace of the lab's network, which is the control plane's place too."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from tests.lab import network
from tests.lab.kernel import LabError, Process, in_group, in_network
from tests.lab.plan import CONTROL, UPLINK_CIDR
from tests.lab.site import Site
from tests.lab.state import Changes, LabState

_NAME = "switch"
# With $1, a hostname; $2 and $3, files to show as /etc/hosts and /etc/resolv.conf; and a command.
_SETTLE = (
    'echo "$1" >/proc/sys/kernel/hostname && mount --bind "$2" /etc/hosts &&'
    ' mount --bind "$3" /etc/resolv.conf && shift 3 && exec "$@"'
)


def found(state: Changes | LabState) -> Process | None:
    """The process that holds the switch's namespace, if there is one."""
    noted = state.process(_NAME)
    return noted if noted is not None and noted.is_alive else None


def running(state: Changes | LabState) -> Process:
    """:raises LabError: the lab is not up."""
    switch = found(state)
    if switch is None:
        raise LabError("the lab is not up, or its switch was killed: bring it up")
    return switch


def ensure(site: Site, changes: Changes) -> Process:
    """The switch, which is made when it is not there."""
    switch = found(changes)
    if switch is not None:
        return switch
    group = site.group(_NAME)
    group.kill()  # what a making that did not get to its end has left
    site.group("control").make()
    hold = ["unshare", "--net", "--", "/bin/sh", "-c", "echo ready; exec sleep infinity"]
    switch = site.start(group, hold)
    network.make_switch(switch)
    _start_uplink(site, switch)
    changes.note_process(_NAME, switch)
    return switch


def _start_uplink(site: Site, switch: Process) -> None:
    """A way out for hosts that changes nothing on the machine: in user mode, by slirp4netns."""
    uplink = ["slirp4netns", "--configure", "--mtu=1500", "--disable-host-loopback",
              f"--cidr={UPLINK_CIDR}", str(switch.pid), network.UPLINK]  # fmt: skip
    with (site.directory / "uplink.log").open("w") as log:
        subprocess.run(
            in_group(site.group(_NAME), ["setsid", "--fork", *uplink]),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
        )  # fmt: skip
    network.route_to_uplink(switch)


def attached(site: Site, argv: Sequence[str]) -> list[str]:
    """``argv`` as a command of the machine that has the lab's network in place of its own.

    It is called ``control`` there, and names of hosts resolve. The command belongs to the lab, and
    is killed with it.

    :raises LabError: the lab is not up.
    """
    switch = running(site.state)
    # Its own name too: the machine's does not resolve here.
    unshare = ["unshare", "--mount", "--uts", "--propagation", "slave", "--"]
    files = [str(site.hosts_file), str(site.resolver_file)]
    settle = ["/bin/sh", "-c", _SETTLE, "sh", CONTROL, *files]
    command = in_network(switch, [*unshare, *settle, *argv])
    return in_group(site.group("control"), command)
