"""``virtmgr init``."""

from __future__ import annotations

from contextlib import closing

from virtmgr.bootstrap.control_plane import authority, called, check_authority, server_certificate
from virtmgr.config.settings import Initialised, ServerSettings
from virtmgr.ports.clock import SystemClock
from virtmgr.services import auth
from virtmgr.store.engine import make_engine
from virtmgr.store.migrate import upgrade
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


def initialise(settings: ServerSettings) -> Initialised:
    """Make what is missing; what is there stays as it is."""
    settings.data_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    upgrade(settings.database)
    units = SqlUnitOfWorkFactory(make_engine(settings.database))
    with closing(units), units() as uow:
        check_authority(uow, settings)  # before a second CA is made
    authority(settings).create()
    server_certificate(settings)
    with closing(units), units() as uow:
        check_authority(uow, settings)
        token = auth.initialise(uow, SystemClock())
        uow.commit()
    return Initialised(
        server=f"https://{called(settings, settings.listen)}",
        ca_file=None if settings.given_certificate else settings.ca_file,
        user=auth.FIRST_USER,
        token=token,
    )
