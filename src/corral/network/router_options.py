"""What a network's dnsmasq tells guests of routers: a file that it reads, and a note of what it has read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral import files

_FILE_MODE: Final = 0o644  # dnsmasq reads it as a user of its own


@dataclass(frozen=True)
class RouterOptions:
    """Below the directory that networks have their files in. Cut anywhere, the next write says that it is to be read."""

    root: Path
    network_uid: str

    @property
    def path(self) -> Path:
        return self.root / f"{self.network_uid}.opts" / "routers"

    @property
    def note(self) -> Path:
        return self.root / f"{self.network_uid}.routers-read"

    def write(self, lines: Sequence[str]) -> bool:
        """Whether dnsmasq has something else in mind. Raises `storage-error` where the network has no place yet."""
        text = _text(lines)
        if text != _content(self.path):
            if text:
                files.write_atomic(self.path, text, _FILE_MODE)
            else:
                files.remove_file(self.path)
        return text != _content(self.note)

    def note_read(self, lines: Sequence[str]) -> None:
        text = _text(lines)
        if text:
            files.write_atomic(self.note, text)
        elif self.note.exists():
            files.remove_file(self.note)


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise files.storage_error(f"read {path}", error) from error
