"""What of a VM lies beside its disks, kept for one that comes from it until that one is made. Blocking."""

import secrets
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from corral import files


class Heirs:
    """A directory for each heir, there whole or not at all. Closed to everybody else: a TPM's state is a secret."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._former = frozenset(path.name for path in directory.iterdir()) if directory.is_dir() else frozenset()
        """What another process left: whoever asked for it has gone with it, or has written what is wanted down."""

    def find(self, uid: str) -> Path | None:
        path = self._directory / uid
        return path if path.is_dir() else None

    def keep(self, uid: str, source: Path, names: Sequence[str]) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        temporary = self._directory / f".{uid}.{secrets.token_hex(4)}.tmp"
        temporary.mkdir(mode=0o700)
        try:
            for found in (source / name for name in names):
                if found.is_dir():
                    shutil.copytree(found, temporary / found.name)
                elif found.exists():
                    shutil.copyfile(found, temporary / found.name)
            for path in temporary.rglob("*"):
                (files.fsync_dir if path.is_dir() else files.fsync_file)(path)
            self.remove(uid)
            temporary.rename(self._directory / uid)
            files.fsync_dir(self._directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def remove(self, uid: str) -> None:
        path = self._directory / uid
        if path.is_dir():
            # Renamed first, so that half of it is never taken for the whole.
            gone = path.rename(self._directory / f".{uid}.{secrets.token_hex(4)}.tmp")
            shutil.rmtree(gone)

    def remove_former(self, kept: Collection[str]) -> None:
        for name in self._former - set(kept):
            shutil.rmtree(self._directory / name, ignore_errors=True)
