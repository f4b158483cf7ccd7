"""Which recipe an image was built by: a name for the code and files of the build, so that an older image is noticed."""

import hashlib
import sys
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from corral.images.catalogue import load_catalogue

DIGITS: Final = 12
# What an image's content depends on, beside the distribution's packages.
_SOURCES: Final = {
    "debian": ("build_debian.py", "bootdisk.py", "debian"),
    "micro": ("build_micro.py", "cpio.py", "micro"),
}


@cache
def recipe_version(build: str) -> str:
    """The version of the recipe `build` (a catalogue entry's field); empty where there is none."""
    if build not in _SOURCES:
        return ""
    digest = hashlib.sha256()
    for name in _SOURCES[build]:
        _add(digest, resources.files("corral.images") / name)
    return digest.hexdigest()[:DIGITS]


def _add(digest: "hashlib._Hash", source: Traversable) -> None:
    if source.is_dir():
        for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
            _add(digest, entry)
        return
    digest.update(f"{source.name}\0".encode() + source.read_bytes() + b"\0")


if __name__ == "__main__":  # for the installer: `python -m corral.images.recipes debian-12`
    sys.stdout.write("".join(recipe_version(entry.build) for entry in load_catalogue() if entry.name == sys.argv[1]))
