"""What of virtmgr's is on a machine."""

from __future__ import annotations

from tests.lab.host import LabHost

_TREES = ("/etc", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var")


def named_after_virtmgr(host: LabHost) -> set[str]:
    """Files and directories whose name says so, but for what the lab itself has."""
    found = host.run("find", *_TREES, "-iname", "*virtmgr*", "-not", "-path", "*virtmgr-lab*")
    return set(found.stdout.split())


def traces(host: LabHost) -> dict[str, set[str]]:
    """Everything that a host of virtmgr's has and a plain machine has not."""
    links = host.run("ls", "/sys/class/net").stdout.split()
    running = host.run("pgrep", "-af", "virtmgr-|bin/virtmgr", check=False).stdout.splitlines()
    return {
        "files": named_after_virtmgr(host),
        "processes": {line for line in running if line.split()[0] != "1"},  # the lab's own
        "tables": set(host.run("nft", "list", "tables").stdout.splitlines()),
        "links": {link for link in links if link.startswith("vm")},
        "at boot": {path for path in ("/etc/rc.local",) if host.path(path).exists()},
    }
