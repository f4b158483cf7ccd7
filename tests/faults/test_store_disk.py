"""Disks that are full, read-only or failing: coded errors, nothing half done, and work again when the cause is gone.

The small disk is a tmpfs in a mount namespace of the child's own, so that nothing is left mounted, whatever happens.
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys

import pytest

from corral.errors import CorralError
from corral.store.base import Put
from corral.store.sqlite import SqliteStore

FULL_DISK = """
import asyncio, json, os, sys
from pathlib import Path
from corral.errors import CorralError
from corral.store.base import Append, Put
from corral.store.sqlite import SqliteStore

async def code_of(call):
    try:
        await call
    except CorralError as error:
        return error.code
    return "ok"

async def main(directory):
    ballast = directory / "ballast"
    ballast.write_bytes(b"x" * 400_000)
    store = await SqliteStore.open(directory / "corral.db")
    acknowledged, codes = [], []
    for number in range(400):
        code = await code_of(store.transact(
            [Put(f"/a/{number:04}", b"v" * 10_000), Put(f"/b/{number:04}", b"v" * 10_000)],
            appends=[Append("audit", b"%d" % number)],
        ))
        if code == "ok":
            acknowledged.append(number)
        else:
            codes.append(code)
            if len(codes) == 5:
                break
    together = await asyncio.gather(*(code_of(store.transact([Put(f"/t/{n}", b"v" * 200_000)])) for n in range(5)))
    seen = len((await store.range("/a/")).records)
    while_full = store.revision
    ballast.unlink()
    after = await code_of(store.transact([Put("/after", b"1")], appends=[Append("audit", b"after")]))
    await store.close()

    store = await SqliteStore.open(directory / "corral.db")
    keys = {side: [int(r.key[3:]) for r in (await store.range(f"/{side}/")).records] for side in "ab"}
    audit = [entry.value.decode() for entry in await store.journal("audit")]
    revision = store.revision
    await store.close()
    os.write(1, json.dumps(dict(
        acknowledged=acknowledged, codes=codes, together=together, seen=seen, after=after, keys=keys, audit=audit,
        while_full=while_full, revision=revision,
    )).encode())

asyncio.run(main(Path(sys.argv[1])))
"""

READ_ONLY = """
import asyncio, os, subprocess, sys
from pathlib import Path
from corral.errors import CorralError
from corral.store.sqlite import SqliteStore

async def main(directory):
    await (await SqliteStore.open(directory / "corral.db")).close()
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
    codes = []
    for name in ("corral.db", "new.db"):
        try:
            await SqliteStore.open(directory / name)
        except CorralError as error:
            codes.append(error.code)
    os.write(1, " ".join(codes).encode())

asyncio.run(main(Path(sys.argv[1])))
"""


OPEN_ON_FULL_DISK = """
import asyncio, os, sys
from pathlib import Path
from corral.errors import CorralError
from corral.store.base import Put
from corral.store.sqlite import SqliteStore

async def main(directory):
    ballast = directory / "ballast"
    codes = []
    with ballast.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError:
            pass
    try:
        await SqliteStore.open(directory / "corral.db")
    except CorralError as error:
        codes.append(error.code)
    ballast.unlink()
    store = await SqliteStore.open(directory / "corral.db")
    codes.append(str((await store.transact([Put("/a", b"1")])).revision))
    await store.close()
    os.write(1, " ".join(codes).encode())

asyncio.run(main(Path(sys.argv[1])))
"""


KILLED_ON_FULL_DISK = """
import asyncio, os, signal, sys
from pathlib import Path
from corral import files
from corral.store.base import Put
from corral.store.spare import Spare
from corral.store.sqlite import SqliteStore

directory = Path(sys.argv[1])
spare = Spare(directory / "spare")

async def be_killed():
    with files.exclusive_lock(directory / "lock"):
        spare.ensure()
        store = await SqliteStore.open(directory / "corral.db", spare=spare)
        await store.transact([Put("/a", b"1" * 100_000)])
        os.kill(os.getpid(), signal.SIGKILL)

async def start_again():
    with files.exclusive_lock(directory / "lock"):
        store = await SqliteStore.open(directory / "corral.db", spare=spare)
        size, revision = len((await store.get("/a")).value), (await store.transact([Put("/b", b"1")])).revision
        await store.close()
    return size, revision

if os.fork() == 0:
    asyncio.run(be_killed())
os.wait()
# SQLite makes it anew, and what little space it had may be somebody else's by then.
(directory / "corral.db-shm").unlink()
with (directory / "ballast").open("wb", buffering=0) as stream:
    try:
        while True:
            stream.write(b"x" * 4096)
    except OSError:
        pass
free = files.free_bytes(directory)
size, revision = asyncio.run(start_again())
os.write(1, f"{free} {size} {revision}".encode())
"""


def _on_small_disk(script: str, directory: str, size: str) -> str:
    """Run `script` with a tmpfs of `size` at `directory` that nobody else sees."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mounted = 'mount -t tmpfs -o size="$3" tmpfs "$2" && exec "$0" -c "$1" "$2"'
    done = subprocess.run(
        [*namespace, "sh", "-c", mounted, sys.executable, script, directory, size],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_full_disk_refuses_whole_transactions_and_heals(tmp_path):
    found = json.loads(_on_small_disk(FULL_DISK, str(tmp_path), "3m"))
    assert set(found["codes"]) == {"disk-full"}
    assert set(found["together"]) == {"disk-full"}
    assert len(found["acknowledged"]) > 10
    assert found["seen"] == found["while_full"] == len(found["acknowledged"])
    assert found["after"] == "ok"
    assert found["keys"]["a"] == found["keys"]["b"] == found["acknowledged"]
    assert found["audit"] == [*map(str, found["acknowledged"]), "after"]
    assert found["revision"] == len(found["acknowledged"]) + 1


def test_a_database_is_not_half_made_on_a_full_disk(tmp_path):
    assert _on_small_disk(OPEN_ON_FULL_DISK, str(tmp_path), "1m").split() == ["disk-full", "1"]


def test_one_that_was_killed_opens_on_a_disk_with_nothing_free(tmp_path):
    """Of what was set aside. Else no daemon would start, and nobody could be told why."""
    assert _on_small_disk(KILLED_ON_FULL_DISK, str(tmp_path), "40m").split() == ["0", "100000", "2"]


def test_a_read_only_directory_is_told(tmp_path):
    assert _on_small_disk(READ_ONLY, str(tmp_path), "3m").split() == ["store-unavailable", "store-unavailable"]


def test_a_missing_directory_is_told(tmp_path):
    with pytest.raises(CorralError) as refused:
        asyncio.run(SqliteStore.open(tmp_path / "nowhere" / "corral.db"))
    assert refused.value.code == "store-unavailable"


def test_a_file_that_may_not_grow_refuses_whole_transactions_and_heals(tmp_path):
    """RLIMIT_FSIZE: write answers EFBIG, which SQLite reports as an I/O error."""
    script = """
import asyncio, os, resource, sys
from pathlib import Path
from corral.errors import CorralError
from corral.store.base import Put
from corral.store.sqlite import SqliteStore

async def main(path):
    store = await SqliteStore.open(path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
    written, code = 0, ""
    while not code:
        try:
            await store.transact([Put(f"/a/{written:04}", b"v" * 9000), Put(f"/b/{written:04}", b"v")])
            written += 1
        except CorralError as error:
            code = error.code
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.transact([Put("/after", b"1")])
    counts = [await store.count(prefix) for prefix in ("/a/", "/b/", "/after")]
    await store.close()
    os.write(1, f"{code} {counts == [written, written, 1]} {written > 5}".encode())

asyncio.run(main(Path(sys.argv[1])))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "corral.db")], capture_output=True, timeout=60, check=False
    )
    assert done.stdout.decode() == "store-unavailable True True", done.stderr.decode()


def test_a_failed_fsync_stops_all_writing(tmp_path):
    """The kernel drops pages that it could not write and reports that once: a second fsync would lie."""

    def failing() -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "corral.db")
        await store.transact([Put("/a", b"1")])
        commit = store._writer.commit
        store._writer.commit = failing  # type: ignore[method-assign]
        answers = await asyncio.gather(
            *(store.transact([Put(f"/b/{n}", b"1")]) for n in range(3)), return_exceptions=True
        )
        store._writer.commit = commit  # type: ignore[method-assign]
        with pytest.raises(CorralError) as refused:
            await store.transact([Put("/c", b"1")])
        assert {answer.code for answer in (*answers, refused.value) if isinstance(answer, CorralError)} == {
            "store-unavailable"
        }
        await store.close()
        store = await SqliteStore.open(tmp_path / "corral.db")
        assert await store.count("/") == 1
        await store.close()

    asyncio.run(scenario())


def test_durable_transactions_are_fsynced_and_only_those(tmp_path):
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "corral.db")
        modes: list[tuple[bool, int]] = []
        commit = store._writer.commit

        def observed() -> None:
            modes.append((True, store._connection.execute("PRAGMA synchronous").fetchone()[0]))
            commit()

        store._writer.commit = observed  # type: ignore[method-assign]
        await store.transact([Put("/a", b"1")])
        await store.transact([Put("/a", b"2")], durable=False)
        await asyncio.gather(*(store.transact([Put(f"/m/{n}", b"1")], durable=n == 3) for n in range(5)))
        assert [mode for _, mode in modes] == [2, 1, 2]  # FULL, NORMAL, and one durable one makes its batch FULL
        await store.close()

    asyncio.run(scenario())
