"""Hosts that virtmgr installs: the states installing and install_failed."""

from __future__ import annotations

from alembic import op

revision = "install_states"
down_revision = "enrolment"
branch_labels = None
depends_on = None

_BEFORE = ("enrolling", "ready", "cordoned", "maintenance", "unreachable")
_NEW = ("installing", "install_failed")


def upgrade() -> None:
    _allow((*_BEFORE[:1], *_NEW, *_BEFORE[1:]))


def downgrade() -> None:
    op.execute(
        "UPDATE hosts SET state = 'enrolling' WHERE state IN ('installing', 'install_failed')"
    )
    _allow(_BEFORE)


def _allow(states: tuple[str, ...]) -> None:
    legal = ", ".join(f"'{state}'" for state in states)
    with op.batch_alter_table("hosts") as hosts:
        hosts.drop_constraint(op.f("ck_hosts_state"), type_="check")
        hosts.create_check_constraint(op.f("ck_hosts_state"), f"state IN ({legal})")
