"""Vendors' files of checksums, in the forms that vendors use. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from corral.errors import CorralError

Algorithm = Literal["sha256", "sha512"]

_BY_LENGTH: Final[dict[int, Algorithm]] = {64: "sha256", 128: "sha512"}
# coreutils: `HEX  NAME`, `HEX *NAME` (Debian, Ubuntu); a lone `HEX` (Alpine).
_GNU: Final = re.compile(r"^([0-9a-fA-F]{64}|[0-9a-fA-F]{128})(?:\s+\*?(?:\./)?(\S+))?$")
# BSD: `SHA256 (NAME) = HEX` (Fedora, Rocky).
_BSD: Final = re.compile(r"^(SHA256|SHA512) \((.+)\) = ([0-9a-fA-F]+)$")


@dataclass(frozen=True)
class Checksum:
    algorithm: Algorithm
    digest: str
    """Lower-case hex."""


def find_checksum(text: str, name: str) -> Checksum:
    """The checksum of the file `name`; signatures around the lines are passed over. Raises `download-failed`."""
    found = [checksum for checksum in (_parse(line.strip(), name) for line in text.splitlines()) if checksum]
    if not found:
        raise CorralError(
            "download-failed",
            f"find the checksum of {name}",
            "the vendor's checksum file does not name it",
            "the vendor may have moved the image; look at the catalogue entry's URLs",
        )
    return max(found, key=lambda checksum: len(checksum.digest))


def _parse(line: str, name: str) -> Checksum | None:
    if match := _BSD.match(line):
        algorithm, named, digest = match[1].lower(), match[2], match[3].lower()
        if named == name and _BY_LENGTH.get(len(digest)) == algorithm:
            return Checksum(_BY_LENGTH[len(digest)], digest)
        return None
    if match := _GNU.match(line):
        digest, named = match[1].lower(), match[2]
        # A lone checksum stands in a file that is named after the one image it is for.
        if named is None or named.rpartition("/")[2] == name:
            return Checksum(_BY_LENGTH[len(digest)], digest)
    return None
