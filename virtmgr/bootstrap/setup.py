"""``virtmgr init``."""

from __future__ import annotations

from virtmgr.bootstrap.control_plane import (
    authority,
    build_services,
    reachable,
    server_certificate,
)
from virtmgr.config.settings import Initialised, ServerSettings
from virtmgr.services import auth
from virtmgr.store.migrate import upgrade


def initialise(settings: ServerSettings) -> Initialised:
    """Make what is missing; what is there stays as it is."""
    settings.data_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    upgrade(settings.database)
    authority(settings).create()
    server_certificate(settings)
    services = build_services(settings)
    with services.units() as uow:
        token = auth.initialise(uow, services.clock)
        uow.commit()
    return Initialised(
        server=f"https://{reachable(settings.listen)}",
        ca_file=settings.ca_file,
        user=auth.FIRST_USER,
        token=token,
    )
