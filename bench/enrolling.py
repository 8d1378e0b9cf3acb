"""How long machines take to become hosts, by one command over real ssh: one, then several at once.

python -m bench.enrolling 10    (as root; hosts are of the lab, see docs/lab.md)
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.lab.plan import Flavour, Release, fleet
from tests.lab.site import Site
from tests.multihost.fleet import Fleet, running_fleet
from virtmgr.domain.ssh import fingerprint_of
from virtmgr.enrollment.wheelhouse import make_wheelhouse

_LONGEST = 3600.0  # seconds


def enrol(product: Fleet, hosts: list[LabHost], directory: Path) -> float:
    """Seconds until all of them are ready."""
    machines = {
        host.name: {
            "ansible_host": host.address,
            "virtmgr_host_key": fingerprint_of(host.public_key),
        }
        for host in hosts
    }
    common = {"ansible_ssh_private_key_file": str(product.lab.site.key)}
    inventory = directory / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"virtmgr_hosts": {"vars": common, "hosts": machines}}))
    begun = time.monotonic()
    product.run("host", "add", "--from-inventory", str(inventory), timeout=_LONGEST)
    seconds = time.monotonic() - begun
    assert {product.host_state(host.name) for host in hosts} == {"ready"}
    return seconds


def main(count: int) -> None:
    """Enrol one prepared host, and then ``count`` others at once."""
    own = Path("/etc/debian_version").read_text().partition(".")[0]
    release = next(release for release in Release if release == own)
    lab = Lab(Site(Path(f"/var/lib/virtmgr-lab-bench-{os.getpid()}")), say=print)
    with tempfile.TemporaryDirectory() as directory:
        wheelhouse = Path(directory) / "wheelhouse"
        wheelhouse.mkdir()
        make_wheelhouse(wheelhouse, ("3.11",))
        try:
            first, *others = lab.up(fleet(count + 1, (release,), Flavour.PREPARED))
            with running_fleet(lab, VIRTMGR_WHEELHOUSE=str(wheelhouse)) as product:
                for hosts in ([first], others):
                    load = os.getloadavg()[0]
                    seconds = enrol(product, hosts, Path(directory))
                    print(f"{len(hosts)} hosts: {seconds:.0f} s (load average before: {load:.1f})")
        finally:
            lab.down()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
