"""The database file itself: older and newer schemas, damage, foreign files, backup and restore."""

import asyncio
import contextlib
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from corral import files
from corral.errors import CorralError
from corral.store import backup as copies
from corral.store import schema
from corral.store.base import Append, JournalEntry, Put, Record
from corral.store.sqlite import SqliteStore


def _filled(path: Path, count: int = 50) -> None:
    async def fill() -> None:
        store = await SqliteStore.open(path)
        for number in range(count):
            await store.transact(
                [Put(f"/vms/{number:04}", b'{"n":%d}' % number)],
                appends=[Append("audit", b"%d" % number)],
                durable=False,
            )
        await store.close()

    asyncio.run(fill())


def _code(path: Path, migrations: tuple[schema.Migration, ...] = schema.MIGRATIONS) -> str:
    async def attempt() -> str:
        try:
            await (await SqliteStore.open(path, migrations=migrations)).close()
        except CorralError as error:
            return error.code if error.hint else "says not what to do next"
        return "ok"

    return asyncio.run(attempt())


def _count(path: Path) -> int:
    async def count() -> int:
        store = await SqliteStore.open(path)
        try:
            return await store.count("/vms/")
        finally:
            await store.close()

    return asyncio.run(count())


# ---- schema ---------------------------------------------------------------------------------------------------------


def _add_owner(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE records ADD COLUMN owner TEXT NOT NULL DEFAULT ''")


def _fail_halfway(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE half_made (x)")
    connection.execute("INSERT INTO no_such_table VALUES (1)")


def test_an_older_file_is_brought_up_to_date_and_kept_beside(tmp_path):
    path = tmp_path / "corral.db"
    _filled(path)

    async def upgrade() -> None:
        store = await SqliteStore.open(path, migrations=(*schema.MIGRATIONS, _add_owner))
        assert await store.count("/vms/") == 50
        assert await store.get("/vms/0007") == Record("/vms/0007", b'{"n":7}', 8, 8)
        assert await store.journal_last("audit") == JournalEntry(50, b"49")
        assert (await store.transact([Put("/vms/new", b"{}")])).revision == 51
        await store.close()

    asyncio.run(upgrade())
    assert _code(path) == "store-too-new"
    assert _code(path, (*schema.MIGRATIONS, _add_owner)) == "ok"
    kept = copies.inspect(tmp_path / f"corral.db.schema-{len(schema.MIGRATIONS)}")
    assert (kept.schema, kept.records, kept.revision) == (len(schema.MIGRATIONS), 50, 50)


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "corral.db"
    _filled(path)
    assert _code(path, (*schema.MIGRATIONS, _add_owner, _fail_halfway)) == "store-unavailable"
    assert _code(path) == "ok"
    assert _count(path) == 50
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        columns = {row[1] for row in connection.execute("PRAGMA table_info(records)")}
    assert "half_made" not in names
    assert "owner" not in columns


def test_the_first_schema_never_changes(tmp_path):
    """A released migration is history: databases out there were made by it. Add another one instead."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        schema.migrate(connection, schema.MIGRATIONS[:1])
        tables = {
            table: [(row[1], row[2]) for row in connection.execute(f"PRAGMA table_info({table})")]
            for table in ("state", "records", "history", "journal", "journals", "leases")
        }
    assert tables == {
        "state": [("name", "TEXT"), ("value", "INTEGER")],
        "records": [
            ("id", "INTEGER"),
            ("key", "TEXT"),
            ("revision", "INTEGER"),
            ("created", "INTEGER"),
            ("lease", "INTEGER"),
            ("value", "BLOB"),
        ],
        "history": [
            ("id", "INTEGER"),
            ("key", "TEXT"),
            ("revision", "INTEGER"),
            ("created", "INTEGER"),
            ("ended", "INTEGER"),
            ("deleted", "INTEGER"),
            ("value", "BLOB"),
        ],
        "journal": [("name", "TEXT"), ("sequence", "INTEGER"), ("value", "BLOB")],
        "journals": [("name", "TEXT"), ("last", "INTEGER")],
        "leases": [("id", "INTEGER"), ("ttl_s", "REAL")],
    }


# ---- damage ---------------------------------------------------------------------------------------------------------


def test_damage_is_found_at_opening(tmp_path):
    path = tmp_path / "corral.db"
    _filled(path, 500)
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(size // 2)
        stream.write(os.urandom(8192))
    assert _code(path) == "store-corrupt"


def test_a_cut_off_file_is_found_at_opening(tmp_path):
    path = tmp_path / "corral.db"
    _filled(path, 500)
    os.truncate(path, path.stat().st_size // 2)
    assert _code(path) == "store-corrupt"


def test_what_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "corral.db"
    path.write_bytes(b"my diary, not a database\n" * 500)
    before = path.read_bytes()
    assert _code(path) == "store-corrupt"
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "corral.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE diary (entry TEXT)")
        connection.commit()
    before = path.read_bytes()
    assert _code(path) == "store-corrupt"
    assert path.read_bytes() == before


def test_nobody_else_can_read_the_database(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "corral.db")
        await store.transact([Put("/a", b"1")])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert modes == {"corral.db": 0o600, "corral.db-wal": 0o600, "corral.db-shm": 0o600}
        await store.close()

    asyncio.run(scenario())


def test_leases_live_through_a_restart_with_their_whole_time(tmp_path):
    from corral.clock import ManualClock

    async def scenario() -> None:
        clock = ManualClock()
        store = await SqliteStore.open(tmp_path / "corral.db", clock=clock)
        lease = await store.lease_grant(10)
        await store.transact([Put("/l/a", b"1", lease)])
        clock.advance(9)
        await store.close()

        clock = ManualClock()  # another process: its monotonic time begins anew, the wall clock may say anything
        clock.jump(10**8)
        store = await SqliteStore.open(tmp_path / "corral.db", clock=clock)
        clock.advance(9)
        await store.expire_leases()
        assert await store.count("/l/") == 1
        await store.lease_keep_alive(lease)
        assert await store.lease_grant(10) > lease
        clock.advance(10)
        await store.expire_leases()
        assert await store.count("/l/") == 0
        await store.close()

    asyncio.run(scenario())


# ---- backup and restore ---------------------------------------------------------------------------------------------


def test_a_backup_of_a_busy_store_is_one_whole_state(tmp_path):
    database, target = tmp_path / "corral.db", tmp_path / "backup.db"

    async def scenario() -> None:
        store = await SqliteStore.open(database)
        stop = asyncio.Event()

        async def write(side: str) -> None:
            number = 0
            while not stop.is_set():
                await store.transact([Put(f"/{side}/x/{number:05}", b"v" * 500), Put(f"/{side}/y/{number:05}", b"v")])
                number += 1

        writers = [asyncio.create_task(write(side)) for side in "abcd"]
        for _ in range(3):
            await asyncio.sleep(0.05)
            contents = await asyncio.to_thread(copies.backup, database, target)
            assert contents.revision <= store.revision
            assert contents.records == contents.revision * 2
            assert not target.with_name("backup.db-wal").exists()
        stop.set()
        await asyncio.gather(*writers)
        await store.close()

    asyncio.run(scenario())
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".*"))


def test_a_backup_is_restored_and_what_it_replaces_is_kept(tmp_path):
    database, target = tmp_path / "corral.db", tmp_path / "backup.db"
    _filled(database, 20)
    copies.backup(database, target)
    _filled(database, 30)
    restored = copies.restore(target, database)
    assert restored.replaced is not None
    assert copies.inspect(restored.replaced).revision == 50
    assert (restored.contents.records, restored.contents.revision) == (20, 20 + copies.RESTORE_REVISION_STEP)

    async def scenario() -> None:
        store = await SqliteStore.open(database)
        assert await store.count("/vms/") == 20
        assert await store.get("/vms/0003") == Record("/vms/0003", b'{"n":3}', 4, 4)
        for since in (20, 35, 50):  # who watched the store that was replaced has seen another history
            with pytest.raises(CorralError) as refused:
                await anext(store.watch("/vms/", since))
            assert refused.value.code == "compacted"
        page = await store.range("/vms/")
        await store.transact([Put("/vms/0003", b"{}")])
        assert (await anext(store.watch("/vms/", page.revision))).key == "/vms/0003"
        await store.close()

    asyncio.run(scenario())
    assert {path.name for path in tmp_path.iterdir()} == {"corral.db", "backup.db", "lock", restored.replaced.name}


def test_a_damaged_database_is_replaced_with_its_log_moved_along(tmp_path):
    database, target = tmp_path / "corral.db", tmp_path / "backup.db"
    _filled(database, 20)
    copies.backup(database, target)
    database.write_bytes(b"rubbish" * 1000)
    (tmp_path / "corral.db-wal").write_bytes(b"stale")
    restored = copies.restore(target, database)
    assert restored.replaced is not None
    assert restored.replaced.read_bytes() == b"rubbish" * 1000
    assert not (tmp_path / "corral.db-wal").exists()
    assert _count(database) == 20


def test_a_lost_database_is_restored(tmp_path):
    database, target = tmp_path / "corral.db", tmp_path / "backup.db"
    _filled(database, 20)
    copies.backup(database, target)
    database.unlink()
    assert copies.restore(target, database).replaced is None
    assert _count(database) == 20


@pytest.mark.parametrize("what", ["rubbish", "cut", "foreign", "empty", "missing"])
def test_a_bad_backup_is_refused_and_nothing_is_touched(tmp_path, what):
    database, target = tmp_path / "corral.db", tmp_path / "backup.db"
    _filled(database, 200)
    copies.backup(database, target)
    if what == "rubbish":
        target.write_bytes(b"rubbish" * 5000)
    elif what == "cut":
        os.truncate(target, target.stat().st_size // 2)
    elif what == "foreign":
        target.unlink()
        with contextlib.closing(sqlite3.connect(target)) as connection:
            connection.execute("CREATE TABLE diary (entry TEXT)")
    elif what == "empty":
        target.write_bytes(b"")
    else:
        target.unlink()
    before = database.read_bytes()
    with pytest.raises(CorralError) as refused:
        copies.restore(target, database)
    assert refused.value.code in ("store-corrupt", "invalid-argument")
    assert database.read_bytes() == before
    assert not list(tmp_path.glob("*.replaced-*"))


def test_a_newer_backup_is_refused(tmp_path):
    database, target = tmp_path / "corral.db", tmp_path / "backup.db"
    _filled(database, 5)
    copies.backup(database, target)
    with contextlib.closing(sqlite3.connect(target)) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    with pytest.raises(CorralError) as refused:
        copies.restore(target, database)
    assert refused.value.code == "store-too-new"


def test_no_restore_under_a_running_daemon(tmp_path):
    database, target = tmp_path / "corral.db", tmp_path / "backup.db"
    _filled(database, 5)
    copies.backup(database, target)
    with files.exclusive_lock(tmp_path / "lock"), pytest.raises(CorralError) as refused:
        copies.restore(target, database)
    assert refused.value.code == "daemon-already-running"


def test_a_backup_onto_the_database_itself_is_refused(tmp_path):
    _filled(tmp_path / "corral.db", 5)
    with pytest.raises(CorralError) as refused:
        copies.backup(tmp_path / "corral.db", tmp_path / "corral.db")
    assert refused.value.code == "invalid-argument"
