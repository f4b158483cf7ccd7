"""The audit log's anchors: a file that only grows, one line for each time the end of the chain was written down."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from corral.files import fsync_dir, storage_error


@dataclass(frozen=True)
class Anchor:
    """The chain's end at a time. `rewound`: the log was found shorter than, or other than, the anchor before said."""

    time: str
    writer: str
    sequence: int
    hash: str
    rewound: bool = False


def append_anchor(path: Path, anchor: Anchor) -> None:
    """Add a line, durably. Raises `disk-full` or `storage-error`."""
    try:
        new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            cut = size and os.pread(fd, 1, size - 1) != b"\n"
            os.write(fd, (b"\n" if cut else b"") + json.dumps(asdict(anchor)).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            fsync_dir(path.parent)
    except OSError as error:
        raise storage_error(f"write {path}", error) from error


def read_anchors(path: Path) -> list[Anchor]:
    """All anchors, oldest first. A line that a crash cut short is passed over: its anchor was never acknowledged."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(f"read {path}", error) from error
    anchors = []
    for line in lines:
        try:
            anchors.append(Anchor(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return anchors
