"""The hub process: interactive streams.

python -m virtmgr.bootstrap.hub    (``virtmgr serve`` forks its own)
"""

from __future__ import annotations

import asyncio
import signal

import uvloop
from websockets.typing import Origin

from virtmgr.api.hub import Hub
from virtmgr.bootstrap import local_streams, logs
from virtmgr.bootstrap.certificate import LOOK, OwnCertificate
from virtmgr.bootstrap.control_plane import build_services, called
from virtmgr.bootstrap.processes import allow_many_connections, run_alone
from virtmgr.config.settings import ServerSettings


async def run(settings: ServerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    certificate = OwnCertificate(settings)
    hub = Hub(
        services=build_services(settings, news=False),
        server_context=certificate.for_clients(),
        agent_context=certificate.for_agents(),
        origins=(Origin(f"https://{called(settings, settings.listen)}"),),
    )
    keeper = asyncio.create_task(_keep(certificate))
    try:
        here = local_streams.listen(settings.run_directory)
        await hub.run(settings.stream_listen.host, settings.stream_listen.port, stop, here)
    finally:
        keeper.cancel()


async def _keep(certificate: OwnCertificate) -> None:
    while True:
        await asyncio.sleep(LOOK)
        certificate.take_up()


def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    allow_many_connections()
    logs.configure("hub")
    uvloop.run(run(settings))


def main() -> None:
    """The same as a program of its own."""
    run_alone(serve)


if __name__ == "__main__":
    main()
