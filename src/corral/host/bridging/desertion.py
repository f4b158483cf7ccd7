"""A change of the host's network that nobody carries out any more is taken back: its process, or the whole machine, died."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from corral import proc
from corral.host.bridging.journal import LOG, Journal
from corral.log import logger

MODULE: Final = "corral.host.bridging.change"
LOOK_S: Final = 5.0
_MODE: Final = 0o600

log = logger("host.network")


def begin_process(directory: Path, *, undo: bool = False) -> None:
    """Carry out what the journal in `directory` says; `undo`: take it back. It outlives this process."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND
    fd = os.open(directory / LOG, flags, _MODE)
    try:
        argv = [sys.executable, "-m", MODULE, str(directory), *(["--undo"] if undo else [])]
        proc.spawn(argv, fd, own_session=True)
    finally:
        os.close(fd)


class DesertionWatch:
    """Looks at the daemon's start, and from then on. A change that was begun this moment has no process yet that holds it:
    later than at the start, when nobody begins one, it is taken back when two looks in a row found it deserted."""

    def __init__(self, directory: Path) -> None:
        self._journal = Journal(directory)
        self._suspected = True

    async def run(self) -> None:
        await asyncio.to_thread(self.look)
        await asyncio.sleep(LOOK_S)

    def look(self) -> bool:
        """Whether something was to be taken back."""
        known, self._suspected = self._suspected, self._journal.deserted()
        if not (known and self._suspected):
            return False
        log.warning(
            "an unconfirmed change of this host's network is taken back", directory=str(self._journal.directory)
        )
        begin_process(self._journal.directory, undo=True)
        return True
