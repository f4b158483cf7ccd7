"""Reading an ISO 9660 image as the hostile input it is: its labels, what it boots by, and single files out of it.

ECMA-119 (ISO 9660), the Joliet extension, Rock Ridge's names (IEEE P1282) and the El Torito specification 1.0. Every
length and place that the image names is checked against a bound and against the file's end; nothing is followed twice.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from corral.errors import CorralError
from corral.names import MIB, plain_text

SECTOR_BYTES: Final = 2048
SYSTEM_AREA_SECTORS: Final = 16
DESCRIPTORS_MAX: Final = 32
DIRECTORY_MAX_BYTES: Final = 4 * MIB
PATH_PARTS_MAX: Final = 16
CATALOG_ENTRIES_MAX: Final = 64
ID_MAX_CHARS: Final = 128

_MAGIC: Final = b"CD001"
_BOOT, _PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 0, 1, 2, 255
_EL_TORITO: Final = b"EL TORITO SPECIFICATION"
_PLATFORM_X86, _PLATFORM_EFI = 0x00, 0xEF
_JOLIET: Final = (b"%/@", b"%/C", b"%/E")
_FLAG_DIRECTORY: Final = 0x02


@dataclass(frozen=True)
class IsoDescription:
    """What an image says of itself."""

    volume_id: str
    publisher: str = ""
    application: str = ""
    system: str = ""
    bios: bool = False
    uefi: bool = False

    @property
    def bootable(self) -> bool:
        return self.bios or self.uefi


@dataclass(frozen=True)
class _Extent:
    """A stretch of the file, checked to lie within it."""

    offset: int
    length: int


class IsoReader:
    """An open image. Raises `image-invalid` for anything that is not a sound ISO 9660 file system."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._size = stream.seek(0, io.SEEK_END)
        self._primary = b""
        self._joliet = b""
        self._boot = b""
        for number in range(DESCRIPTORS_MAX):
            sector = self._read(_Extent((SYSTEM_AREA_SECTORS + number) * SECTOR_BYTES, SECTOR_BYTES))
            if sector[1:6] != _MAGIC:
                raise self._invalid("it has no ISO 9660 signature: it is not the image of a CD or DVD")
            kind = sector[0]
            if kind == _TERMINATOR:
                break
            if kind == _PRIMARY and not self._primary:
                self._primary = sector
            elif kind == _SUPPLEMENTARY and sector[88:91] in _JOLIET:
                self._joliet = sector
            elif kind == _BOOT and sector[7 : 7 + len(_EL_TORITO)] == _EL_TORITO:
                self._boot = sector
        if not self._primary:
            raise self._invalid("it has no primary volume descriptor")

    def describe(self) -> IsoDescription:
        platforms = self._platforms()
        primary = self._primary
        return IsoDescription(
            volume_id=_identifier(primary[40:72]),
            publisher=_identifier(primary[318:446]),
            application=_identifier(primary[574:702]),
            system=_identifier(primary[8:40]),
            bios=_PLATFORM_X86 in platforms,
            uefi=_PLATFORM_EFI in platforms,
        )

    def extract(self, path: str, target: IO[bytes], max_bytes: int) -> int:
        """Write the file at `path` (any case) to `target`; how many bytes. Raises `image-invalid` if it is not there."""
        extents = self._find(path)
        length = sum(extent.length for extent in extents)
        if length > max_bytes:
            raise self._invalid(f"/{path} has {length} bytes, at most {max_bytes} are taken")
        for extent in extents:
            done = 0
            while done < extent.length:
                part = self._read(_Extent(extent.offset + done, min(MIB, extent.length - done)))
                target.write(part)
                done += len(part)
        return length

    def has(self, path: str) -> bool:
        try:
            self._find(path)
        except CorralError:
            return False
        return True

    # ---- places ----

    def _platforms(self) -> set[int]:
        """The platforms that the boot catalogue has bootable entries for."""
        if not self._boot:
            return set()
        (sector,) = struct.unpack_from("<I", self._boot, 71)
        catalogue = self._read(_Extent(sector * SECTOR_BYTES, SECTOR_BYTES))
        if catalogue[0] != 1 or catalogue[30:32] != b"\x55\xaa":
            raise self._invalid("its boot catalogue is damaged")
        platform, found = catalogue[1], set()
        for entry in range(1, CATALOG_ENTRIES_MAX):
            record = catalogue[entry * 32 : entry * 32 + 32]
            if record[0] in (0x90, 0x91):
                platform = record[1]
            elif record[0] == 0x88:
                found.add(platform)
        return found

    def _find(self, path: str) -> list[_Extent]:
        parts = PurePosixPath(path.lstrip("/")).parts
        if not parts or len(parts) > PATH_PARTS_MAX or ".." in parts:
            raise self._invalid(f"{path[:100]!r} is no path in it")
        descriptors = [self._primary] + ([self._joliet] if self._joliet else [])
        for descriptor in descriptors:
            found = self._walk(descriptor, parts, joliet=descriptor is self._joliet)
            if found:
                return found
        raise self._invalid(f"it has no /{'/'.join(parts)}")

    def _walk(self, descriptor: bytes, parts: tuple[str, ...], *, joliet: bool) -> list[_Extent]:
        current = [self._extent(descriptor[156:190])]
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            found = [
                self._extent(record)
                for record in self._records(current[0])
                if part.lower() in _names(record, joliet=joliet) and bool(record[25] & _FLAG_DIRECTORY) is not last
            ]
            if not found:
                return []
            current = found
        return current

    def _extent(self, record: bytes) -> _Extent:
        start, length = struct.unpack_from("<I", record, 2)[0], struct.unpack_from("<I", record, 10)[0]
        extent = _Extent(start * SECTOR_BYTES, length)
        if extent.offset + extent.length > self._size:
            raise self._invalid("a file lies beyond its end: it is cut short")
        return extent

    def _records(self, directory: _Extent) -> Iterator[bytes]:
        if directory.length > DIRECTORY_MAX_BYTES:
            raise self._invalid("a directory is too large")
        content = self._read(directory)
        at = 0
        while at < len(content):
            length = content[at]
            if length == 0:  # the rest of this sector is empty
                at = (at // SECTOR_BYTES + 1) * SECTOR_BYTES
                continue
            record = content[at : at + length]
            if length < 34 or len(record) < length or 33 + record[32] > length:
                raise self._invalid("a directory is damaged")
            yield record
            at += length

    def _read(self, extent: _Extent) -> bytes:
        if extent.offset < 0 or extent.offset + extent.length > self._size:
            raise self._invalid("it ends too early: it is cut short, or not the image of a CD or DVD")
        self._stream.seek(extent.offset)
        content = self._stream.read(extent.length)
        if len(content) != extent.length:
            raise self._invalid("it ends too early")
        return content

    def _invalid(self, reason: str) -> CorralError:
        return CorralError(
            "image-invalid", f"read {self._name}", reason, "check the download against its publisher's checksum"
        )


def describe_iso(path: Path) -> IsoDescription:
    """Open and describe; the file is ours, or was opened for us."""
    with path.open("rb") as stream:
        return IsoReader(stream, path.name).describe()


def _identifier(raw: bytes) -> str:
    return plain_text(raw.decode("latin-1").strip(" \0"), ID_MAX_CHARS)


def _names(record: bytes, *, joliet: bool) -> set[str]:
    """All names of a directory record, in lower case: the plain one without its version, and Rock Ridge's."""
    raw = record[33 : 33 + record[32]]
    if raw in (b"\0", b"\1"):
        return set()
    text = raw.decode("utf-16-be", "replace") if joliet else raw.decode("latin-1")
    plain = text.partition(";")[0].lower()
    names = {plain, plain.removesuffix(".")}
    if not joliet:
        at = 33 + record[32] + (1 - record[32] % 2)
        long_name = b""
        while at + 5 <= len(record) and record[at + 2] >= 4:
            if record[at : at + 2] == b"NM":
                long_name += record[at + 5 : at + record[at + 2]]
            at += record[at + 2]
        if long_name:
            names.add(long_name.decode("utf-8", "replace").lower())
    return names
