"""A document of the user's for a request: a file, or standard input."""

import sys
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.names import MIB

# What a document may take in a request at most (model/limits.py says how much of it is accepted): refuse to read more.
DOCUMENT_MAX_BYTES: Final = 16 * MIB


def read_document(name: str, option: str) -> str:
    """A file's text for the request; `-` is standard input."""
    from corral.files import read_limited

    try:
        content = (
            sys.stdin.buffer.read(DOCUMENT_MAX_BYTES + 1)
            if name == "-"
            else read_limited(Path(name).expanduser(), DOCUMENT_MAX_BYTES)
        )
        return content.decode()
    except OSError as error:
        raise CorralError("invalid-argument", f"{option} {name}", error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise CorralError("invalid-document", f"{option} {name}", "it is not UTF-8 text") from error
