"""Where pools lie: a link for each in the state directory, so that they are found with the database lost, and in each a mark."""

import os
import stat
from pathlib import Path
from typing import Final

from corral import files
from corral.errors import CorralError
from corral.model.base import DEFAULT_POOL
from corral.model.pool import Pool
from corral.names import parse_name

# A QEMU under its own uid must reach its files through these directories, and list none of them.
DIRECTORY_MODE: Final = 0o711
MARK: Final = ".corral-pool"
MARK_MAX_BYTES: Final = 4096


class PoolPlaces:
    """The default pool's directory, and a symbolic link to each other one's. Blocking."""

    def __init__(self, default: Path, links: Path) -> None:
        self._default = default
        self._links = links
        self._known = self._read()

    def known(self) -> dict[str, Path]:
        return {DEFAULT_POOL: self._default, **self._known}

    def there(self) -> dict[str, Path]:
        """Those that can be looked into now."""
        return {name: path for name, path in self.known().items() if path == self._default or (path / MARK).is_file()}

    def directory(self, name: str) -> Path:
        """Raises `pool-not-found`, and `pool-unavailable` where the directory is not the one that was marked: its file
        system is not mounted."""
        if name == DEFAULT_POOL:
            return self._default
        path = self._known.get(name)
        if path is None:
            raise CorralError("pool-not-found", f"pool {name[:64]!r}", "there is none of that name", "corral pool list")
        return path

    def check(self, name: str) -> None:
        path = self.directory(name)
        if name != DEFAULT_POOL and not (path / MARK).is_file():
            raise CorralError(
                "pool-unavailable",
                f"use pool {name!r}",
                f"{path} is not there, or does not bear its mark",
                "is its file system mounted?",
            )

    def open(self, pool: Pool) -> None:
        if pool.name == DEFAULT_POOL or pool.name in self._known:
            return
        parse_name(pool.name)
        path = Path(pool.spec.path)
        _prepare(path, pool)
        self._links.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        link = self._links / pool.name
        temporary = link.with_name(f".{pool.name}.{os.urandom(4).hex()}.tmp")
        temporary.symlink_to(path)
        temporary.rename(link)
        files.fsync_dir(self._links)
        self._known[pool.name] = path

    def close(self, name: str) -> None:
        path = self._known.get(name)
        if path is None:
            return
        left = [found.name for found in path.glob("*") if found.suffix in (".qcow2", ".raw")]
        if left:
            reason = f"{len(left)} volumes lie in {path}"
            raise CorralError("pool-in-use", f"delete pool {name!r}", reason, "move or delete them first")
        files.remove_file(path / MARK)
        files.remove_file(self._links / name)
        del self._known[name]

    def _read(self) -> dict[str, Path]:
        if not self._links.is_dir():
            return {}
        return {link.name: link.readlink() for link in sorted(self._links.iterdir()) if link.is_symlink()}


def _prepare(path: Path, pool: Pool) -> None:
    """Make the directory, or take an empty one, and mark it. One that bears this very mark is taken again."""
    asked = f"make pool {pool.name!r} in {path}"
    files.check_not_others(path.parent, asked)
    closed = next((above for above in path.parents if not above.stat().st_mode & stat.S_IXOTH), None)
    if closed is not None and os.geteuid() == 0:
        reason = f"QEMU, which runs under a uid of its own, could not pass {closed}"
        raise CorralError("storage-error", asked, reason, f"chmod o+x {closed}, or choose another place")
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    files.check_not_others(path, asked)
    mark = path / MARK
    if mark.is_file():
        if files.read_limited(mark, MARK_MAX_BYTES).decode(errors="replace").strip() != pool.uid:
            raise CorralError("storage-error", asked, "it is another pool's, maybe another Corral's", "choose another")
        return
    if found := next((found.name for found in path.iterdir() if found.name != "lost+found"), ""):
        raise CorralError("storage-error", asked, f"it is not empty: {found[:80]!r} lies there", "choose an empty one")
    path.chmod(DIRECTORY_MODE)
    files.write_atomic(mark, f"{pool.uid}\n".encode(), 0o600)
