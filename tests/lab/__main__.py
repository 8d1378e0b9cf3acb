"""``python -m tests.lab``: the lab from a shell."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path

from tests.lab import plan
from tests.lab.fleet import DEFAULT_DIRECTORY, Lab
from tests.lab.host import LabHost
from tests.lab.kernel import LabError
from tests.lab.plan import Flavour, Release
from tests.lab.roots import root_tree
from tests.lab.site import Site

_ON_A_HOST = {
    "power-off": (LabHost.power_off, "cut its power"),
    "power-on": (LabHost.power_on, "boot it again"),
    "reinstall": (LabHost.reinstall, "throw its disk away and boot it as new"),
    "hang": (LabHost.hang, "stop all its processes where they stand"),
    "thaw": (LabHost.thaw, "let it go on"),
    "heal": (LabHost.heal, "end its network's faults"),
    "free-disk": (LabHost.free_disk, "empty the disk again"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    directory = os.environ.get("VIRTMGR_LAB_DIRECTORY", DEFAULT_DIRECTORY)
    parser.add_argument(
        "--directory", type=Path, default=directory,
        help="of the lab; its name is the lab's (default: %(default)s)",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="bring hosts up")
    up.add_argument("count", type=int, nargs="?", default=3, metavar="HOSTS")
    up.add_argument("--releases", default="12,13", help="Debian's, in turn (default: %(default)s)")
    up.add_argument("--flavour", type=Flavour, default=Flavour.PREPARED, choices=list(Flavour))
    up.add_argument("--bind", type=Path, action="append", default=[],
                    help="a directory that hosts see, read-only")  # fmt: skip
    verbs.add_parser(
        "trees", help="make the root trees of every release, which takes minutes, once"
    )
    verbs.add_parser("down", help="take everything away")
    verbs.add_parser("list", help="hosts, and their faults")
    run = verbs.add_parser("run", help="run a command in the control plane's place in the network")
    run.add_argument("command", nargs=argparse.REMAINDER)
    for verb, text in (("shell", "root's shell on it, whatever its network"), ("ssh", "log in")):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("host")
        one.add_argument("command", nargs=argparse.REMAINDER)
    for verb, (_, text) in _ON_A_HOST.items():
        verbs.add_parser(verb, help=text).add_argument("host")
    partition = verbs.add_parser("partition", help="cut it off, from everything or from peers")
    partition.add_argument("host")
    partition.add_argument("peers", nargs="*", metavar="PEER", help=f"a host, or {plan.CONTROL}")
    delay = verbs.add_parser("delay", help="make its cable slow")
    delay.add_argument("host")
    delay.add_argument("milliseconds", type=float, help="each way")
    loss = verbs.add_parser("loss", help="make its cable lossy")
    loss.add_argument("host")
    loss.add_argument("percent", type=float, help="of the frames, each way")
    fill = verbs.add_parser("fill-disk", help="fill its disk")
    fill.add_argument("host")
    fill.add_argument("--leave", type=int, default=0, metavar="BYTES")
    return parser


def _list(lab: Lab) -> None:
    for host in lab.hosts():
        state = host.state
        faults = [f"cut from {'all' if peer == '*' else peer}" for peer in state.cut_from]
        faults += [f"delay {state.delay * 1000:g} ms"] if state.delay else []
        faults += [f"loss {state.loss * 100:g} %"] if state.loss else []
        power = ("hangs" if host.is_hung else "on") if host.is_on else "off"
        print(f"{host.name:6}{host.address:16}Debian {state.release:4}{state.flavour:10}{power:7}"
              + ", ".join(faults))  # fmt: skip


def _run(arguments: argparse.Namespace) -> None:
    lab = Lab(Site(arguments.directory), say=lambda text: print(f"==> {text}", flush=True))
    verb = arguments.verb
    command = [word for word in getattr(arguments, "command", ()) if word != "--"]
    if verb == "up":
        releases = [Release(word) for word in arguments.releases.split(",")]
        binds = [path.resolve() for path in arguments.bind]
        lab.up(plan.fleet(arguments.count, releases, arguments.flavour), binds=binds)
        _list(lab)
    elif verb == "trees":
        for release, flavour in itertools.product(Release, Flavour):
            root_tree(release, flavour, lab.say)
    elif verb == "down":
        lab.down()
    elif verb == "list":
        _list(lab)
    elif verb == "run":
        _become(lab.attached(*(command or ["/bin/bash"])))
    else:
        _on_host(verb, lab.host(arguments.host), command, arguments)


def _on_host(verb: str, host: LabHost, command: list[str], arguments: argparse.Namespace) -> None:
    if verb == "shell":
        _become(host.command(*(command or ["/bin/bash"])))
    elif verb == "ssh":
        _become(host.ssh_command(*command))
    elif verb == "partition":
        host.partition(*arguments.peers)
    elif verb == "delay":
        host.degrade(delay=arguments.milliseconds / 1000)
    elif verb == "loss":
        host.degrade(loss=arguments.percent / 100)
    elif verb == "fill-disk":
        host.fill_disk(arguments.leave)
    else:
        _ON_A_HOST[verb][0](host)


def _become(command: list[str]) -> None:
    sys.stdout.flush()
    os.execvp(command[0], command)


def main() -> int:
    if os.geteuid() != 0:
        print("the lab needs root: it makes namespaces and mounts", file=sys.stderr)
        return 1
    try:
        _run(_parser().parse_args())
    except (LabError, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
