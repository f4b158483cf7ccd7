"""dnsmasq processes of routers: one in the namespace for each network whose gateway the router is. They go on without the
daemon."""

import asyncio
import hashlib
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from corral import files, proc
from corral.errors import CorralError
from corral.network.base import Lease
from corral.network.deaths import Deaths
from corral.network.dnsmasq import ServedFiles
from corral.network.router import RouterWish, ServedWish

_TIMEOUT_S: Final = 10.0
_END_S: Final = 2.0
_LOOK_S: Final = 0.01
_FILE_MODE: Final = 0o644
_DIR_MODE: Final = 0o755
_LEASE_WORDS: Final = 4
SUFFIX: Final = ".served"
NAMESPACES: Final = Path("/run/netns")


class RouterServers:
    """What each is told is a file named after the network, the router and its own digest: by its command line a process
    tells which one it has."""

    def __init__(self, root: Path, deaths: Deaths) -> None:
        self._root = root
        self._deaths = deaths

    def stands(self, wish: RouterWish) -> bool:
        return all(self._deaths.lives(_key(wish.namespace, one.network_uid)) for one in wish.served)

    async def ensure(self, wish: RouterWish) -> None:
        wanted = {one.network_uid for one in wish.served}
        for uid in await asyncio.to_thread(self._told, wish.namespace) - wanted:
            await self._end(wish.namespace, uid)
        for one in wish.served:
            await self._serve(wish.namespace, one)

    async def remove(self, namespace: str) -> None:
        for uid in await asyncio.to_thread(self._told, namespace):
            await self._end(namespace, uid)

    async def _serve(self, namespace: str, wish: ServedWish) -> None:
        served = ServedFiles(self._root, wish.network_uid)
        content = _content(served, wish)
        digest = hashlib.sha256(content).hexdigest()[:12]
        path = self._root / f"{wish.network_uid}-{namespace}-{digest}{SUFFIX}"
        pid = await asyncio.to_thread(_pid_of, served, path.name)
        if pid is None or not await asyncio.to_thread(_is_inside, pid, namespace):
            await self._end(namespace, wish.network_uid)
            await asyncio.to_thread(_write, served, path, content)
            ip, program = proc.require("ip", "iproute2"), proc.require("dnsmasq", "dnsmasq-base")
            argv = (ip, "netns", "exec", namespace, program, f"--conf-file={path}")
            await proc.run(argv, timeout_s=_TIMEOUT_S)
            pid = await asyncio.to_thread(_pid_of, served, path.name)
        if pid is not None:
            self._deaths.follow(_key(namespace, wish.network_uid), pid)

    async def _end(self, namespace: str, network_uid: str) -> None:
        """Gone before another one takes its place: both would answer."""
        self._deaths.forget(_key(namespace, network_uid))
        ours = f"{network_uid}-{namespace}-"
        ip = proc.require("ip", "iproute2")
        done = await proc.run((ip, "netns", "pids", namespace), timeout_s=_TIMEOUT_S, check=False)
        pids = [int(word) for word in done.stdout.split() if ours in _command(int(word))]
        # Somebody deleted the namespace that it is in: it would hold it, and serve nobody.
        stray = await asyncio.to_thread(_pid_of, ServedFiles(self._root, network_uid), ours)
        pids += [stray] if stray is not None and stray not in pids else []
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for _ in range(round(_END_S / _LOOK_S)):
            if not any(map(_lives, pids)):
                break
            await asyncio.sleep(_LOOK_S)
        else:
            raise CorralError("command-timeout", f"end dnsmasq in {namespace}", f"it is there after {_END_S:g} s")
        await asyncio.to_thread(_remove, self._root, ours)

    def _told(self, namespace: str) -> set[str]:
        """The networks that something was written for."""
        found = self._root.glob(f"*-{namespace}-*{SUFFIX}")
        return {path.name.partition(f"-{namespace}-")[0] for path in found}


def tell_to_read(served: ServedFiles) -> None:
    """It forgets what is in none of its files any more."""
    pid = _pid_of(served, f"{served.uid}-")
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)


def router_leases(served: ServedFiles) -> tuple[Lease, ...]:
    """dnsmasq's file: when it ends, MAC, address, name; those of DHCPv6 have no MAC."""
    try:
        lines = served.leases.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ()
    words = (line.split() for line in lines)
    return tuple(
        Lease(mac=found[1], address=found[2], hostname="" if found[3] == "*" else found[3])
        for found in words
        if len(found) > _LEASE_WORDS and re.fullmatch("[0-9a-f:]{17}", found[1])
    )


def _key(namespace: str, network_uid: str) -> str:
    return f"{namespace} {network_uid}"


def _content(served: ServedFiles, wish: ServedWish) -> bytes:
    lines = [*wish.lines, f"interface={wish.interface}", "except-interface=lo", "bind-dynamic"]
    lines += [*served.dnsmasq_options(), f"dhcp-leasefile={served.leases}", f"pid-file={served.pid}"]
    return "".join(f"{line}\n" for line in lines).encode()


def _write(served: ServedFiles, path: Path, content: bytes) -> None:
    try:
        for directory in served.directories:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(_DIR_MODE)
    except OSError as error:
        raise files.storage_error(f"make {served.hosts}", error) from error
    files.write_atomic(path, content, _FILE_MODE)


def _remove(root: Path, prefix: str) -> None:
    for path in root.glob(f"{prefix}*{SUFFIX}"):
        files.remove_file(path)


def _pid_of(served: ServedFiles, named: str) -> int | None:
    """Of the one that was told by a file of this name; a number that was left says nothing."""
    try:
        pid = int(served.pid.read_text())
    except (OSError, ValueError):
        return None
    return pid if named in _command(pid) else None


def _is_inside(pid: int, namespace: str) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino == (NAMESPACES / namespace).stat().st_ino
    except OSError:
        return False


def _lives(pid: int) -> bool:
    """One that ends loses its command line before its sockets, which another one waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("X", "Z")
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:  # it has ended
        return ""
