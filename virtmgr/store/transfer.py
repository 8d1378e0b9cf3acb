"""The whole inventory out of a database, and into an empty one, in one transaction each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from virtmgr.domain.errors import Conflict, Unavailable
from virtmgr.store import migrate, rows
from virtmgr.store.engine import make_migration_engine, parse_url, shown
from virtmgr.store.rows import Checksum, Proof, Row


@dataclass(frozen=True)
class Content:
    """What a database is to hold: its schema, and the rows of each table."""

    revision: str
    last_numbers: Mapping[str, int]  # by table, where the database counts rows
    tables: frozenset[str]
    rows_of: Callable[[str], Iterable[Row]]
    proofs: Sequence[Proof] = ()  # what the rows must amount to, where that is known


def convert(source: str, target: str) -> list[Proof]:
    """Copy everything from one database into another, empty one. The source stays as it is.

    It is one transaction: what fails leaves nothing, and may be begun again.

    :returns: what each table held, and holds now.
    :raises Conflict: a control plane runs on the source, or the target holds something.
    :raises Unavailable: a database does not answer, or refuses rows; or the copy differs.
    """
    if parse_url(source) == parse_url(target):
        raise Conflict("convert the database: source and target are the same")
    require_newest(source)
    with rows.snapshot(source) as connection:
        if rows.is_in_use(connection):
            raise in_use(source, "convert")
        known = {table.name: table for table in rows.tables_of(connection)}
        content = Content(
            revision=migrate.head_revision(),
            last_numbers=rows.last_numbers(connection),
            tables=frozenset(known),
            rows_of=lambda name: rows.read(connection, known[name]),
        )
        return fill(target, content, replace=False)


def fill(url: str, content: Content, *, replace: bool) -> list[Proof]:
    """Make the database hold ``content``, and bring it to the newest schema.

    :param replace: whether what it holds may go.
    :returns: what each table holds, of the schema that the content is of.
    :raises Conflict: it holds something, or a control plane runs on it.
    :raises Unavailable: it does not answer or refuses rows, or differs from ``content.proofs``.
    """
    try:
        with migrate.locked(make_migration_engine(url)) as connection:
            if rows.is_in_use(connection):
                raise in_use(url, "fill")
            if not replace and not rows.is_empty(connection):
                raise Conflict(
                    f"fill the database {shown(make_url(url))}: it is not empty",
                    code="not_empty",
                    hint="make a new database",
                )
            migrate.remake(connection, content.revision)
            known = [one for one in rows.tables_of(connection) if one.name in content.tables]
            proofs = [_fill_table(connection, table, content) for table in known]
            rows.go_on_from(connection, content.last_numbers)
            rows.check_references(connection)
            _compare(content.proofs, proofs)
            migrate.raise_to_newest(connection)
    except (OSError, SQLAlchemyError) as error:
        reason = getattr(error, "orig", None) or error
        raise Unavailable(
            f"fill the database {shown(make_url(url))}: {str(reason).strip()}",
            code="database_unavailable",
            hint="nothing was changed; see that it runs and that its user may make tables in it",
        ) from error
    return proofs


def _fill_table(connection: Connection, table: Table, content: Content) -> Proof:
    given = Checksum()
    rows.write(connection, table, given.of(content.rows_of(table.name)))
    proof = rows.proof_of(connection, table)
    _compare([given.proof(table.name)], [proof])
    return proof


def _compare(given: Iterable[Proof], present: Iterable[Proof]) -> None:
    held = {proof.table: proof for proof in present}
    for proof in given:
        if held.get(proof.table) != proof:
            raise Unavailable(
                f"fill the database: of table {proof.table} there were {proof.rows} rows with the "
                f"checksum {proof.sha256}, and what is held now differs: {held.get(proof.table)}",
                code="copy_differs",
                hint="nothing was changed; the source is damaged, or this is a defect: report it",
            )


def require_newest(url: str) -> None:
    """:raises Conflict: the database's schema is not this version's."""
    present, wanted = migrate.current_revision(url), migrate.head_revision()
    if present != wanted:
        raise Conflict(
            f"read the database: its schema is at revision {present or 'none'}, this version "
            f"reads {wanted}",
            code="schema_mismatch",
            hint="run 'virtmgr db upgrade' first, or use the virtmgr that it belongs to",
        )


def in_use(url: str, verb: str) -> Conflict:
    """The refusal to change what a control plane works with."""
    return Conflict(
        f"{verb} the database {shown(make_url(url))}: a control plane runs on it",
        code="control_plane_running",
        hint="stop every 'virtmgr serve' first; after a kill wait ten seconds",
    )


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    """A look at a database that may be of any schema, or empty."""
    with migrate.locked(make_migration_engine(url)) as connection:
        yield connection
