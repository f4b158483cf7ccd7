"""One daemon of this machine at a time looks for a free subnet and makes its network there."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.files import storage_error

# Longer than a network that is made is waited for, in the turn.
WAIT_S: Final = 20.0
LOOK_S: Final = 0.05
_ASKED: Final = "find a free subnet"


@asynccontextmanager
async def subnet_turn(lock: Path, wait_s: float = WAIT_S) -> AsyncIterator[None]:
    """A subnet counts as used once a network has it: whoever chose one keeps others from choosing until then. The kernel
    ends the turn of a process that dies. Raises `wrong-state` where the others take longer than `wait_s`."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise storage_error(f"open {lock}", error) from error
    try:
        end_s = time.monotonic() + wait_s
        while not _taken(fd):
            if time.monotonic() > end_s:
                raise CorralError("wrong-state", _ASKED, "another daemon of this machine is about to choose one")
            await asyncio.sleep(LOOK_S)
        yield
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
