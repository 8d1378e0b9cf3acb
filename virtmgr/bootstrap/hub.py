"""The hub process: interactive streams.

python -m virtmgr.bootstrap.hub    (started by ``virtmgr serve``)
"""

from __future__ import annotations

import asyncio
import os
import signal

import uvloop
from websockets.typing import Origin

from virtmgr.api.hub import Hub
from virtmgr.bootstrap import logs
from virtmgr.bootstrap.control_plane import (
    agent_context,
    build_services,
    reachable,
    server_certificate,
)
from virtmgr.bootstrap.processes import die_with_parent
from virtmgr.config.settings import ServerSettings
from virtmgr.enrollment.pki import server_context


async def run(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    certificate, key = server_certificate(settings)
    hub = Hub(
        services=build_services(settings),
        server_context=server_context(certificate, key),
        agent_context=agent_context(settings),
        origins=(Origin(f"https://{reachable(settings.listen)}"),),
    )
    await hub.run(settings.stream_listen.host, settings.stream_listen.port, stop)


def main() -> None:
    die_with_parent()
    logs.configure("hub")
    uvloop.run(run(ServerSettings.load({}, os.environ)))


if __name__ == "__main__":
    main()
