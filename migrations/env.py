"""Alembic's entry: runs on the connection that ``virtmgr.store.migrate`` hands over.

From the alembic command line there is none; then VIRTMGR_DATABASE_URL names the database.
"""

from __future__ import annotations

import os

from alembic import context

from virtmgr.store.engine import make_migration_engine
from virtmgr.store.migrate import compare_options, locked


def run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        context.configure(connection=connection, **compare_options(connection))
        context.run_migrations()
        return
    engine = make_migration_engine(os.environ["VIRTMGR_DATABASE_URL"])
    with locked(engine) as connection:
        context.configure(connection=connection, **compare_options(connection))
        context.run_migrations()


run()
