"""A Redfish service that switches a host of a lab, on a network that only hosts reach.

python -m tests.multihost.bmc LAB HOST ADDRESS PORT CERTIFICATE
"""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from pathlib import Path

from tests.drivers.fence.test_devices import Redfish, certificate
from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.lab.kernel import in_network
from tests.lab.site import Site
from tests.multihost.fleet import ROOT

PORT = 8443


@contextmanager
def running_bmc(lab: Lab, of: LabHost, beside: LabHost, address: str, keys: Path) -> Iterator[None]:
    """The BMC of one host, at an address that is ``beside`` another one; it serves in the block."""
    words = [sys.executable, "-m", "tests.multihost.bmc", str(lab.site.directory), of.name]
    words += [address, str(PORT), str(certificate(keys))]
    with subprocess.Popen(
        in_network(beside.state.process, words), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.terminate()


def main(directory: str, name: str, address: str, port: str, pem: str) -> None:
    host = Lab(Site(Path(directory))).host(name)

    class Bmc(Redfish):
        def do_GET(self) -> None:
            type(self).power = "On" if host.is_on else "Off"
            super().do_GET()

        def do_POST(self) -> None:
            type(self).power = "On"
            super().do_POST()
            if type(self).power == "Off":
                host.power_off()

    server = HTTPServer((address, int(port)), Bmc)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
