"""HAProxy processes of routers: one in each namespace that has balancers; a new configuration takes over without a gap."""

import asyncio
import hashlib
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from corral import files, proc
from corral.names import namespace_name
from corral.network.haproxy_config import build_config
from corral.network.router import RouterWish

_TIMEOUT_S: Final = 10.0
_DIR_MODE: Final = 0o700


class Haproxy:
    """Configurations are files named after the router and their own digest: by its command line a process tells which one
    it has. It goes on without the daemon."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.on_death: Callable[[], None] = lambda: None
        self._watched: dict[str, tuple[int, int]] = {}
        """By namespace: the process, and the descriptor that tells of its end."""

    async def ensure(self, wish: RouterWish) -> None:
        namespace = wish.namespace
        running = await self._running(namespace)
        if not wish.balancers:
            if running:
                await self.remove(wish.uid)
            return
        content = build_config(wish, str(self._directory / f"{namespace}.sock"))
        path = self._directory / f"{namespace}-{hashlib.sha256(content).hexdigest()[:12]}.cfg"
        current = sorted(pid for pid, used in running.items() if used == path)
        others = [pid for pid in running if pid not in current[:1]]
        if current:
            for pid in others:  # twins, and those that their followers have not reached
                _signal(pid, signal.SIGUSR1)
        else:
            await self._start(namespace, path, content, others)
            current = [pid for pid, used in (await self._running(namespace)).items() if used == path]
        self._watch(namespace, current[:1])

    async def _start(self, namespace: str, path: Path, content: bytes, others: list[int]) -> None:
        await asyncio.to_thread(self._write, namespace, path, content)
        argv = ("ip", "netns", "exec", namespace, proc.require("haproxy", "haproxy"), "-D", "-f", str(path))
        follow = ("-sf", *map(str, others)) if others else ()
        await proc.run((*argv, *follow), timeout_s=_TIMEOUT_S)

    def _write(self, namespace: str, path: Path, content: bytes) -> None:
        try:
            self._directory.mkdir(mode=_DIR_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise files.storage_error(f"make {self._directory}", error) from error
        files.write_atomic(path, content)
        for old in self._directory.glob(f"{namespace}-*.cfg"):
            if old != path:
                files.remove_file(old)

    async def remove(self, router_uid: str) -> None:
        """At once: its router goes, or has no balancer any more."""
        namespace = namespace_name(router_uid)
        self._forget(namespace)
        for pid in await self._running(namespace):
            _signal(pid, signal.SIGTERM)
        for path in (*self._directory.glob(f"{namespace}-*.cfg"), self._directory / f"{namespace}.sock"):
            path.unlink(missing_ok=True)

    async def _running(self, namespace: str) -> dict[int, Path]:
        """Our processes in it, and which configuration each has."""
        ip = proc.require("ip", "iproute2")
        done = await proc.run((ip, "netns", "pids", namespace), timeout_s=_TIMEOUT_S, check=False)
        return await asyncio.to_thread(self._configurations, [int(word) for word in done.stdout.split()])

    def _configurations(self, pids: list[int]) -> dict[int, Path]:
        found = {}
        for pid in pids:
            with suppress(OSError):  # it has ended meanwhile
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                paths = [Path(os.fsdecode(word)) for word in words if word.endswith(b".cfg")]
                if paths and paths[0].parent == self._directory:
                    found[pid] = paths[0]
        return found

    # ---- supervision -----------------------------------------------------------------------------------------------

    def stands(self, wish: RouterWish) -> bool:
        """It has not died since it was looked at."""
        return wish.namespace in self._watched or not wish.balancers

    def _watch(self, namespace: str, pids: list[int]) -> None:
        known = self._watched.get(namespace)
        if known is not None and known[0] not in pids:
            self._forget(namespace)
        for pid in pids:
            if namespace not in self._watched:
                with suppress(ProcessLookupError):
                    fd = os.pidfd_open(pid)
                    self._watched[namespace] = (pid, fd)
                    asyncio.get_running_loop().add_reader(fd, self._ended, namespace)

    def _ended(self, namespace: str) -> None:
        self._forget(namespace)
        self.on_death()

    def _forget(self, namespace: str) -> None:
        known = self._watched.pop(namespace, None)
        if known is not None:
            asyncio.get_running_loop().remove_reader(known[1])
            os.close(known[1])


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
