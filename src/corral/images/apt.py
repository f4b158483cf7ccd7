"""Debian packages through the machine's own apt: its sources, its mirror, its keys. Nothing is installed."""

import asyncio
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from corral import proc
from corral.errors import CorralError

UPDATE_TIMEOUT_S: Final = 300.0
DOWNLOAD_TIMEOUT_S: Final = 600.0
QUERY_TIMEOUT_S: Final = 60.0
EXTRACT_TIMEOUT_S: Final = 120.0

ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}

_DEPENDS: Final = re.compile(r"^ [ |](?:Pre)?Depends: (\S+)$")


class Apt:
    """apt's view of the machine's sources, with its working files under `work`."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._options: tuple[str, ...] = (
            "-o",
            f"Dir::Cache={work}/apt-cache",
            "-o",
            f"Dir::Cache::pkgcache={work}/apt-cache/pkgcache.bin",
            "-o",
            f"Dir::Cache::srcpkgcache={work}/apt-cache/srcpkgcache.bin",
            "-o",
            "APT::Sandbox::User=root",
        )
        (work / "apt-cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)

    async def refresh(self) -> None:
        """Read the package lists anew, into `work`: the machine's own may be missing or old, and stay as they are."""
        lists = self._work / "apt-lists"
        await asyncio.to_thread((lists / "partial").mkdir, parents=True, exist_ok=True)
        if f"Dir::State::Lists={lists}" not in self._options:
            self._options = (*self._options, "-o", f"Dir::State::Lists={lists}")
        await self._run("apt-get", "update", "-q", timeout_s=UPDATE_TIMEOUT_S)

    async def knows(self, package: str) -> bool:
        done = await proc.run(
            ["apt-cache", *self._options, "show", "--no-all-versions", package],
            timeout_s=QUERY_TIMEOUT_S,
            check=False,
            env=ENVIRONMENT,
        )
        return done.returncode == 0

    async def closure(self, package: str, follow: Callable[[str], bool]) -> tuple[str, ...]:
        """`package` and what it depends on, walking only through packages that `follow` says yes to."""
        text = await self._run(
            "apt-cache",
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            package,
            timeout_s=QUERY_TIMEOUT_S,
        )
        return walk_dependencies(text, package, follow)

    async def download(self, packages: Iterable[str], into: Path) -> tuple[Path, ...]:
        """The packages' files, checked by apt against the signed lists."""
        await asyncio.to_thread(into.mkdir, parents=True, exist_ok=True)
        await self._run("apt-get", "download", "-q", *packages, timeout_s=DOWNLOAD_TIMEOUT_S, cwd=into)
        return await asyncio.to_thread(lambda: tuple(sorted(into.glob("*.deb"))))

    async def _run(self, program: str, *arguments: str, timeout_s: float, cwd: Path | None = None) -> str:
        argv = [program, *self._options, *arguments]
        done = await proc.run(argv, timeout_s=timeout_s, env=ENVIRONMENT, cwd=str(cwd) if cwd else None)
        return done.stdout.decode(errors="replace")


def walk_dependencies(text: str, package: str, follow: Callable[[str], bool]) -> tuple[str, ...]:
    """Names reached from `package` in the output of `apt-cache depends --recurse`, through `follow`ed names only."""
    edges: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line and not line[0].isspace():
            current = edges.setdefault(line.strip(), [])
        elif match := _DEPENDS.match(line):
            current.append(match[1])
    reached, queue = [package], [package]
    while queue:
        for name in edges.get(queue.pop(), []):
            if name in edges and name not in reached and follow(name):
                reached.append(name)
                queue.append(name)
    return tuple(reached)


async def extract(package: Path, into: Path) -> None:
    """Unpack a .deb's files; its scripts are not run."""
    await asyncio.to_thread(into.mkdir, parents=True, exist_ok=True)
    await proc.run(["dpkg-deb", "-x", str(package), str(into)], timeout_s=EXTRACT_TIMEOUT_S, env=ENVIRONMENT)


def failed(what: str, error: CorralError) -> CorralError:
    """The coded error of a build that ended because of `error`."""
    if error.code in ("disk-full", "command-missing", "operation-cancelled"):
        return error
    return CorralError(
        "image-build-failed",
        what,
        f"{error.asked}: {error.reason}"[-2000:],
        "retry; where packages could not be fetched, see whether `apt-get update` works on this machine",
    )
