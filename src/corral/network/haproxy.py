"""HAProxy processes of routers: one in each namespace that has balancers; a new configuration takes over without a gap."""

import asyncio
import hashlib
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from corral import files, proc
from corral.names import namespace_name
from corral.network.deaths import Deaths
from corral.network.haproxy_config import build_config
from corral.network.router import RouterWish

_TIMEOUT_S: Final = 10.0
_DIR_MODE: Final = 0o700


class Haproxy:
    """Configurations are files named after the router and their own digest: by its command line a process tells which one
    it has. It goes on without the daemon."""

    def __init__(self, directory: Path, deaths: Deaths) -> None:
        self._directory = directory
        self._deaths = deaths

    async def ensure(self, wish: RouterWish) -> None:
        namespace = wish.namespace
        if not wish.balancers and not await asyncio.to_thread(self._told, namespace):
            return
        running = await self._running(namespace)
        stray = self._deaths.pid_of(namespace)
        if stray is not None and stray not in running:  # somebody deleted the namespace that it is in
            self._deaths.forget(namespace)
            _signal(stray, signal.SIGTERM)
        if not wish.balancers:
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
        for pid in current[:1]:
            self._deaths.follow(namespace, pid)

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
        self._deaths.forget(namespace)
        for pid in await self._running(namespace):
            _signal(pid, signal.SIGTERM)
        for path in (*self._directory.glob(f"{namespace}-*.cfg"), self._directory / f"{namespace}.sock"):
            path.unlink(missing_ok=True)

    def _told(self, namespace: str) -> bool:
        """One was started, or may have been."""
        return any(self._directory.glob(f"{namespace}-*.cfg"))

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

    def stands(self, wish: RouterWish) -> bool:
        return self._deaths.lives(wish.namespace) or not wish.balancers


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
