"""Names of guests on the host: a block of /etc/hosts for each network that wishes so, between marks of its own."""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from corral import files

HOSTS: Final = Path("/etc/hosts")
_MODE: Final = 0o644
_BEGIN: Final = "# corral: names of network {uid}; changes in here are overwritten"
_END: Final = "# corral: end of {uid}"


def with_block(text: str, uid: str, lines: Iterable[str]) -> str:
    """`text` with these lines as the block of `uid`, at its end; without lines there is none. Pure. What anybody else
    wrote stays as it is."""
    begin, end = _BEGIN.format(uid=uid), _END.format(uid=uid)
    kept, inside = [], False
    # Not `splitlines`, which takes what others wrote apart at more than the ends of lines.
    written = text.removesuffix("\n").split("\n") if text else []
    for line in written:
        if line == begin:
            inside = True
        elif inside and line == end:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:  # the end mark is gone: what follows may be somebody else's
        kept = [line for line in written if line not in (begin, end)]
    block = list(lines)
    if block:
        kept += [begin, *block, end]
    return "".join(f"{line}\n" for line in kept)


def write_block(path: Path, uid: str, lines: Iterable[str]) -> None:
    """Beside other installations, one at a time. Raises `storage-error` where the file cannot be replaced."""
    asked = f"write the names of guests to {path}"
    try:
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise files.storage_error(asked, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        before = path.read_bytes().decode(errors="surrogateescape") if path.exists() else ""
        after = with_block(before, uid, lines)
        if after != before:
            files.write_atomic(path, after.encode(errors="surrogateescape"), _MODE)
    except OSError as error:
        raise files.storage_error(asked, error) from error
    finally:
        os.close(fd)
