"""A new domain's document against libvirt's own schema, which is read once: libvirt itself reads it anew each time it is asked
to hold a document against it, and that takes three quarters of a definition."""

import threading
from functools import lru_cache
from pathlib import Path
from typing import Final

from lxml.etree import LxmlError, RelaxNG, fromstring

# Of the library that this process talks to libvirtd with.
DOMAIN_SCHEMA: Final = Path("/usr/share/libvirt/schemas/domain.rng")

_turns = threading.Lock()


def is_valid(document: str, schema: Path = DOMAIN_SCHEMA) -> bool:
    """False also where there is no schema to hold it against: then libvirt is to judge."""
    try:
        changed_ns = schema.stat().st_mtime_ns
    except OSError:
        return False
    with _turns:
        found = _read(schema, changed_ns)
        return found is not None and bool(found.validate(fromstring(document.encode())))


@lru_cache(maxsize=1)
def _read(schema: Path, _changed_ns: int) -> RelaxNG | None:
    try:
        return RelaxNG(file=str(schema))
    except (LxmlError, OSError):  # half of a package
        return None
