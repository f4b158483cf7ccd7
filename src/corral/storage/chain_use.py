"""Who reads a chain of files, and who merges one: never both at once.

qemu-img reads without a lock, since a guest may have the files open. One that is merged into meanwhile is misread: beyond
the end that the reader knew when it opened the file it takes zeros. A merge gives way; it can be cut at any instant.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from corral import files, qemu_img
from corral.errors import CorralError

DEPTH_MAX: Final = 256
"""Of files that are looked at; a chain of ours is never so long."""


class ChainUse:
    """Of all chains in these directories. What lies elsewhere, such as an image, is never merged into. Belongs to one
    event loop."""

    def __init__(self, directories: Callable[[], Iterable[Path]]) -> None:
        self._directories = directories
        self._read: Counter[Path] = Counter()
        self._merging: dict[Path, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def reading(self, path: Path) -> AsyncIterator[None]:
        """Nothing is merged into `path`, nor into a file that it lies on."""
        chain = await self._chain(path)
        self._read.update(chain)
        try:
            await self._give_way(chain)
            yield
        finally:
            self._read.subtract(chain)

    async def stop_merges(self, path: Path) -> None:
        """What is merged into `path`, or into a file that it lies on, is merged later: somebody else comes to stand on it."""
        if not self._merging:
            return
        await self._give_way(await self._chain(path))

    async def merge(self, path: Path, work: Callable[[], Awaitable[None]]) -> None:
        """`work` changes `path`. `volume-in-use` if somebody reads it, or comes to."""
        if self._read[path] or path in self._merging:
            raise _in_use(path)
        task = self._merging[path] = asyncio.ensure_future(_done(work))
        try:
            await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise _in_use(path) from None
        finally:
            del self._merging[path]

    async def _give_way(self, chain: Iterable[Path]) -> None:
        found = [self._merging[path] for path in chain if path in self._merging]
        for task in found:
            task.cancel()
        if found:
            await asyncio.wait(found)

    async def _chain(self, path: Path) -> tuple[Path, ...]:
        try:
            return await asyncio.to_thread(_chain, path, frozenset(self._directories()))
        except OSError as error:
            raise files.storage_error(f"read {path.name}", error) from error


def _chain(path: Path, directories: frozenset[Path]) -> tuple[Path, ...]:
    """`path`, and the files of ours that the headers lead to."""
    found = [path]
    while len(found) < DEPTH_MAX and path.suffix == ".qcow2" and path.parent in directories:
        try:
            path = Path(qemu_img.backing_name(path))
        except FileNotFoundError:  # whoever opens the chain is told
            break
        if path in found or not path.name:
            break
        found.append(path)
    return tuple(found)


async def _done(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _in_use(path: Path) -> CorralError:
    return CorralError("volume-in-use", f"merge into {path.name}", "what lies on it is being read", "it is done later")
