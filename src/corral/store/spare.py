"""Space set aside beside the database, so that on a full disk there is some left to say so."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral import files
from corral.names import MIB

SPARE_BYTES: Final = 8 * MIB
AGAIN_BYTES: Final = 4 * SPARE_BYTES
"""It is set aside again once so much is free."""


@dataclass(frozen=True)
class Spare:
    """A file that takes space and holds nothing. Blocking, for less than a millisecond or two."""

    path: Path

    def release(self) -> bool:
        """Give the space up; False: it is given up already."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

    def ensure(self) -> None:
        """Set it aside where it is not, and where there is enough. What fails is tried at the next look."""
        with contextlib.suppress(OSError):
            if self.path.exists() or files.free_bytes(self.path.parent) < AGAIN_BYTES:
                return
            with files.replacing(self.path) as temporary, files.create_private(temporary) as stream:
                os.posix_fallocate(stream.fileno(), 0, SPARE_BYTES)
