"""What a running network needs beside libvirt: its bridge, and the process that serves addresses on it."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_SYS_NET: Final = Path("/sys/class/net")
PidOf = Callable[[str], int | None]


@dataclass
class _Watched:
    name: str
    bridge: str
    served: bool = True
    """It has a process of its own that serves addresses."""
    pid: int | None = None
    pidfd: int = -1


@dataclass
class WatchedNetworks:
    """Tells at once when such a process ends: the kernel says so. Bridges are looked at when somebody asks."""

    pid_of: PidOf
    """The server of a network's name, if it lives."""
    _networks: dict[str, _Watched] = field(default_factory=dict)
    _told: Callable[[], None] | None = None

    def tell(self, told: Callable[[], None]) -> None:
        self._told = told

    def add(self, uid: str, name: str, bridge: str, *, served: bool = True) -> None:
        """In the event loop. Again: as it is now."""
        known = self._networks.get(uid)
        if known is None or (known.name, known.bridge, known.served) != (name, bridge, served):
            self.remove(uid)
            known = self._networks[uid] = _Watched(name, bridge, served)
        if served:
            self._follow(known)

    def remove(self, uid: str) -> None:
        known = self._networks.pop(uid, None)
        if known is not None:
            self._let_go(known)

    def broken(self) -> frozenset[str]:
        """Networks whose bridge or server is gone."""
        found = set()
        for uid, known in self._networks.items():
            if known.served and known.pid is None:  # of one that is followed, the kernel tells when it ends
                self._follow(known)
            if (known.served and known.pid is None) or not (_SYS_NET / known.bridge / "bridge").exists():
                found.add(uid)
        return frozenset(found)

    def close(self) -> None:
        for uid in list(self._networks):
            self.remove(uid)

    def _follow(self, known: _Watched) -> None:
        pid = self.pid_of(known.name)
        if pid == known.pid and known.pidfd >= 0:
            return
        self._let_go(known)
        if pid is None:
            return
        try:
            known.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:  # it ended this instant
            return
        known.pid = pid
        asyncio.get_running_loop().add_reader(known.pidfd, self._ended, known)

    def _ended(self, known: _Watched) -> None:
        self._let_go(known)
        if self._told is not None:
            self._told()

    def _let_go(self, known: _Watched) -> None:
        if known.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(known.pidfd)
            os.close(known.pidfd)
        known.pid, known.pidfd = None, -1
