"""Objects that nothing on the host tells of, each in a file of its own beside the database: what a lost one is rebuilt from.

Each file names the history that it is of: the database's, until one is lost and another begins.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral import files
from corral.errors import CorralError
from corral.files import storage_error
from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer
from corral.model.base import Object
from corral.model.forward import Forward
from corral.model.network_policy import NetworkPolicy
from corral.model.router import Router
from corral.model.security_group import SecurityGroup

KINDS: Final[tuple[type[Object], ...]] = (SecurityGroup, NetworkPolicy, Router, Balancer, Forward, FloatingAddress)
"""In an order in which nothing is missing that another one names."""
SIZE_MAX_BYTES: Final = 1 << 20
_DIRECTORY: Final = "objects"
_STATUS: Final = frozenset({"revision", "status"})


@dataclass(frozen=True)
class Sidecar:
    """One object as it was written last."""

    kind: str
    uid: str
    history: str = ""
    """Empty: what the file says cannot be read."""
    document: str = ""
    """The object's JSON, without what the agent observed."""
    written_at_s: float = 0.0


def document_of(value: Object) -> str:
    return value.model_dump_json(exclude=set(_STATUS))


class Sidecars:
    """Blocking: called in a thread."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / _DIRECTORY

    def write(self, sidecars: Iterable[Sidecar]) -> None:
        """Durable when this returns. Raises `disk-full`, `storage-error`."""
        for one in sidecars:
            path = self._path(one.kind, one.uid)
            try:
                files.make_dirs(path.parent)
            except OSError as error:
                raise storage_error(f"write {path}", error) from error
            text = f'{{"history":{json.dumps(one.history)},"object":{one.document}}}\n'
            files.write_atomic(path, text.encode())

    def remove(self, which: Iterable[tuple[str, str]]) -> None:
        """By kind and uid."""
        for kind, uid in which:
            files.remove_file(self._path(kind, uid))

    def found(self) -> tuple[Sidecar, ...]:
        """All of them."""
        paths = [path for cls in KINDS for path in sorted((self._directory / cls.PLURAL).glob("*.json"))]
        return tuple(map(_read, paths))

    def clean(self) -> None:
        """Take away what a crash left half written."""
        for cls in KINDS:
            files.remove_leftovers(self._directory / cls.PLURAL)

    def _path(self, kind: str, uid: str) -> Path:
        return self._directory / kind / f"{uid}.json"


def _read(path: Path) -> Sidecar:
    unread = Sidecar(path.parent.name, path.stem)
    try:
        written_at_s = path.stat().st_mtime
        document = json.loads(files.read_limited(path, SIZE_MAX_BYTES))
        history, said = document["history"], document["object"]
    except (OSError, ValueError, KeyError, TypeError, CorralError):
        return unread
    if not isinstance(history, str) or not isinstance(said, dict) or said.get("uid") != path.stem:
        return unread
    return Sidecar(
        path.parent.name, path.stem, history, json.dumps(said, separators=(",", ":"), ensure_ascii=False), written_at_s
    )
