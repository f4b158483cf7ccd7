"""The database file: its tables, how an older file becomes a current one, and what a damaged or foreign one is told.

`records` holds what is. When a record is replaced or deleted it moves to `history`, with the revision that ended it: so
a change at revision r is a row whose `revision` is r (a write), or a row that `ended` at r and was `deleted`. History
up to the compaction point can be removed without a trace in the rest.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.store.sqlite_errors import translated

# "Crrl" in ASCII; in the file's header, so that a restore recognises the file as ours.
APPLICATION_ID: Final = 0x4372726C

Migration = Callable[[sqlite3.Connection], None]


_FIRST_SCHEMA: Final = """
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO state VALUES ('revision', 0), ('compacted', 0);
CREATE TABLE records (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, created INTEGER NOT NULL,
    lease INTEGER, value BLOB NOT NULL
);
CREATE INDEX records_by_revision ON records (revision);
CREATE INDEX records_by_lease ON records (lease) WHERE lease IS NOT NULL;
CREATE TABLE history (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, revision INTEGER NOT NULL, created INTEGER NOT NULL,
    ended INTEGER NOT NULL, deleted INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE UNIQUE INDEX history_by_end ON history (ended, key);
CREATE TABLE journal (
    name TEXT NOT NULL, sequence INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name, sequence)
) WITHOUT ROWID;
CREATE TABLE journals (name TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL)
"""


def _create(connection: sqlite3.Connection) -> None:
    # executescript would commit first, and with it end the transaction that all migrations share.
    for statement in _FIRST_SCHEMA.split(";"):
        connection.execute(statement)


# Number n makes schema n+1 out of schema n; an empty file is schema 0. Never change one that was released: add another.
MIGRATIONS: Final[tuple[Migration, ...]] = (_create,)


def version(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found


def check_file(connection: sqlite3.Connection, path: Path, newest: int = len(MIGRATIONS)) -> None:
    """Raise `store-corrupt` if the file is damaged or not ours, `store-too-new` if a later Corral wrote it."""
    asked = f"open {path}"
    with translated(asked, path):
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        found = version(connection)
    if application != APPLICATION_ID and (tables or application):
        raise CorralError("store-corrupt", asked, "it is not a Corral database", "name another file")
    if found > newest:
        raise CorralError(
            "store-too-new",
            asked,
            f"its schema is {found}; this Corral knows schemas up to {newest}",
            "install the Corral that wrote it, or restore a backup made before the upgrade",
            {"schema": found, "newest": newest},
        )
    with translated(asked, path):
        problems = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")]
    if problems != ["ok"]:
        raise CorralError(
            "store-corrupt",
            asked,
            f"the integrity check found: {'; '.join(problems)[:500]}",
            "corral admin restore-db BACKUP, or corral recover to rebuild it from the running VMs",
        )


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the file to the newest schema in one transaction: it is either old or new, never between."""
    found = version(connection)
    if found == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[found:]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
