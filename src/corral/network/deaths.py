"""Who serves in a router's namespace and must not die unheard: each process is followed by the kernel's own word."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress


class Deaths:
    """By a key of the owner's: the process, and the descriptor that tells of its end. In the event loop alone."""

    def __init__(self) -> None:
        self.on_death: Callable[[], None] = lambda: None
        self._followed: dict[str, tuple[int, int]] = {}

    def lives(self, key: str) -> bool:
        """It has not died since it was looked at."""
        return key in self._followed

    def pid_of(self, key: str) -> int | None:
        known = self._followed.get(key)
        return None if known is None else known[0]

    def follow(self, key: str, pid: int) -> None:
        known = self._followed.get(key)
        if known is not None and known[0] == pid:
            return
        self.forget(key)
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            self._followed[key] = (pid, fd)
            asyncio.get_running_loop().add_reader(fd, self._ended, key)

    def forget(self, key: str) -> None:
        known = self._followed.pop(key, None)
        if known is not None:
            asyncio.get_running_loop().remove_reader(known[1])
            os.close(known[1])

    def _ended(self, key: str) -> None:
        self.forget(key)
        self.on_death()
