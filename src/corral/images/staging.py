"""Files that somebody handed over for an image: written whole into the library's own directory before anything is made."""

import asyncio
import os
import re
import secrets
import time
from pathlib import Path
from typing import BinaryIO, Final

from corral import files
from corral.errors import CorralError
from corral.names import MIB, format_bytes

STAGED_MAX_BYTES: Final = 64 * 2**30
# An upload never takes the last of the disk from running guests.
KEPT_FREE_BYTES: Final = 1024 * MIB
# What nobody made an image of is removed after this long.
KEPT_S: Final = 86400.0

_PREFIX: Final = ".staged-"
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")


class StagedFile:
    """One file on its way. `commit` keeps it and tells its token; `close` without it leaves nothing."""

    def __init__(self, path: Path, token: str) -> None:
        self._path = path
        self._token = token
        self._stream: BinaryIO | None = None
        self._kept = False
        self.size_bytes = 0

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self._write, data)

    async def commit(self) -> str:
        await asyncio.to_thread(self._finish)
        self._kept = True
        return self._token

    async def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if not self._kept:
            await asyncio.to_thread(self._path.unlink, missing_ok=True)

    def _write(self, data: bytes) -> None:
        self.size_bytes += len(data)
        asked = "take a file"
        if self.size_bytes > STAGED_MAX_BYTES:
            raise CorralError("body-too-large", asked, f"it has more than {format_bytes(STAGED_MAX_BYTES)}")
        if files.free_bytes(self._path.parent) < len(data) + KEPT_FREE_BYTES:
            reason = f"less than {format_bytes(KEPT_FREE_BYTES)} would be left on {self._path.parent}"
            raise CorralError("disk-full", asked, reason, "free space, then try again")
        try:
            if self._stream is None:
                self._stream = files.create_private(self._path)  # type: ignore[assignment]
            assert self._stream is not None
            self._stream.write(data)
        except OSError as error:
            raise files.storage_error(asked, error) from error

    def _finish(self) -> None:
        if self._stream is None:
            raise CorralError("invalid-document", "take a file", "it is empty")
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise files.storage_error("take a file", error) from error
        self._stream.close()


class Staging:
    """The staged files of one library."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory

    def open(self) -> StagedFile:
        token = secrets.token_hex(16)
        return StagedFile(self._dir / f"{_PREFIX}{token}", token)

    def path(self, token: str) -> Path:
        """Raises `invalid-argument` for a token of nothing."""
        path = self._dir / f"{_PREFIX}{token}"
        if not _TOKEN.fullmatch(token) or not path.exists():
            raise CorralError("invalid-argument", "use an upload", "there is none of that token", "upload it again")
        return path

    async def keep(self, content: bytes) -> Path:
        """A small file at once."""
        staged = self.open()
        try:
            await staged.write(content)
            return self.path(await staged.commit())
        finally:
            await staged.close()

    def clean(self) -> int:
        """Remove what is old; how many."""
        old = [path for path in self._dir.glob(f"{_PREFIX}*") if time.time() - path.stat().st_mtime > KEPT_S]
        for path in old:
            files.remove_file(path)
        return len(old)
