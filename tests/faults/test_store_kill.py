"""kill -9 in the middle of many concurrent durable transactions: every acknowledged one is there, none is half there."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from corral.store.sqlite import SqliteStore

WRITERS = 32

# Each transaction writes one number under three keys and into a journal, and tells it only when it is acknowledged.
CHILD = """
import asyncio, os, sys
from pathlib import Path
from corral.store.base import Append, Precondition, Put
from corral.store.sqlite import SqliteStore

async def main(path, first):
    store = await SqliteStore.open(Path(path))
    numbers = iter(range(first, 10**9))
    async def writer():
        for number in numbers:
            keys = [f"/{side}/{number:09}" for side in "abc"]
            await store.transact(
                [Put(key, b"%d" % number * 50) for key in keys],
                preconditions=[Precondition(key, 0) for key in keys],
                appends=[Append("audit", b"%d" % number)],
            )
            os.write(1, b"%d\\n" % number)
    await asyncio.gather(*(writer() for _ in range(int(sys.argv[3]))))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def _killed_while_writing(database: Path, first: int, after: int) -> set[int]:
    """Run the child until it has acknowledged `after` transactions, kill it at once, and return all that it told."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(database), str(first), str(WRITERS)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    told = b""
    try:
        while told.count(b"\n") < after:
            chunk = os.read(child.stdout.fileno(), 65536)
            assert chunk, "the child ended by itself"
            told += chunk
    finally:
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read()
        child.stdout.close()
        child.wait(10)
    return {int(line) for line in told.split(b"\n")[:-1] if line}


@pytest.mark.parametrize("after", [50, 333])
def test_no_acknowledged_transaction_is_lost_and_none_is_half_there(tmp_path, after):
    database = tmp_path / "corral.db"
    acknowledged: set[int] = set()
    for first in (0, 100_000):
        acknowledged |= _killed_while_writing(database, first, after)

    async def check() -> None:
        store = await SqliteStore.open(database)
        sides = {}
        for side in "abc":
            page = await store.range(f"/{side}/", limit=100_000)
            sides[side] = {int(record.key[3:]): record.revision for record in page.records}
        assert sides["a"] == sides["b"] == sides["c"]
        assert acknowledged <= set(sides["a"])
        assert sorted(sides["a"].values()) == list(range(1, store.revision + 1))
        audit = await store.journal("audit", limit=100_000)
        assert [entry.sequence for entry in audit] == list(range(1, store.revision + 1))
        assert {int(entry.value) for entry in audit} == set(sides["a"])
        await store.close()

    asyncio.run(check())
    assert len(acknowledged) >= 2 * after
