"""osinfo-db, the database that virt-install reads: its XML files under limits, as our own table's entries."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lxml import etree

from corral.log import logger
from corral.model.os import MediumIds, OsFamily, OsInfo, Unattended
from corral.model.vm import Bus, Firmware
from corral.names import GIB, MIB

OSINFO_DIR: Final = Path("/usr/share/osinfo/os")
FILE_MAX_BYTES: Final = 256 * 1024
FILES_MAX: Final = 4000
ANCESTORS_MAX: Final = 64
PATTERN_MAX_CHARS: Final = 512
MEDIA_MAX: Final = 32

_FAMILIES: Final = {
    "linux": OsFamily.LINUX,
    "winnt": OsFamily.WINDOWS,
    "freebsd": OsFamily.BSD,
    "openbsd": OsFamily.BSD,
    "netbsd": OsFamily.BSD,
    "dragonflybsd": OsFamily.BSD,
}
# Device ids of osinfo-db: virtio block and network cards (transitional and modern), and the PCIe e1000.
_VIRTIO_BLOCK: Final = frozenset({"http://pcisig.com/pci/1af4/1001", "http://pcisig.com/pci/1af4/1042"})
_VIRTIO_NET: Final = frozenset({"http://pcisig.com/pci/1af4/1000", "http://pcisig.com/pci/1af4/1041"})
_E1000E: Final = "http://pcisig.com/pci/8086/10d3"
_SCRIPTS: Final = (
    ("/preseed/", Unattended.PRESEED),
    ("/kickstart/", Unattended.KICKSTART),
    ("/unattended/", Unattended.ANSWER_FILE),
)
_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")

_log = logger(__name__)


@dataclass(frozen=True)
class _Entry:
    """One file, as far as it is read. Devices and scripts are inherited from what the system derives from."""

    url: str
    parent: str
    names: tuple[str, ...]
    title: str
    family: str
    devices: frozenset[str]
    without: frozenset[str]
    scripts: tuple[str, ...]
    uefi_alone: bool
    memory_bytes: int
    storage_bytes: int
    vcpus: int
    media: tuple[MediumIds, ...]


def load_osinfo(directory: Path | None = None) -> tuple[OsInfo, ...]:
    """All systems of the database; none where it is not installed."""
    entries = {entry.url: entry for entry in _entries(directory or OSINFO_DIR)}
    return tuple(_info(entry, entries) for entry in sorted(entries.values(), key=lambda entry: entry.names[0]))


def _entries(directory: Path) -> Iterator[_Entry]:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    for path in sorted(directory.glob("*/*.xml"))[:FILES_MAX]:
        try:
            if path.stat().st_size > FILE_MAX_BYTES:
                continue
            system = etree.fromstring(path.read_bytes(), parser).find("os")
        except (OSError, etree.XMLSyntaxError) as error:
            _log.warning("osinfo-db: a file cannot be read", file=str(path), error=str(error)[:200])
            continue
        entry = _entry(system) if system is not None else None
        if entry is not None:
            yield entry


def _entry(system: "etree._Element") -> _Entry | None:
    names = tuple(name for name in (_text(item) for item in system.findall("short-id")) if _ID.fullmatch(name))
    if not names:
        return None
    devices = system.findall("devices/device")
    firmware = {(item.get("type"), item.get("supported") != "false") for item in _of_x86(system, "firmware")}
    derived = system.find("derives-from")
    if derived is None:
        derived = system.find("clones")
    return _Entry(
        url=system.get("id", ""),
        parent=derived.get("id", "") if derived is not None else "",
        names=names,
        title=_text(system.find("name"))[:120] or names[0],
        family=_text(system.find("family")),
        devices=frozenset(item.get("id", "") for item in devices if item.get("supported") != "false"),
        without=frozenset(item.get("id", "") for item in devices if item.get("supported") == "false"),
        scripts=tuple(item.get("id", "") for item in system.findall("installer/script")),
        uefi_alone=("efi", True) in firmware and ("bios", False) in firmware,
        memory_bytes=_number(system, "ram"),
        storage_bytes=_number(system, "storage"),
        vcpus=_number(system, "n-cpus"),
        media=tuple(
            ids for medium in _of_x86(system, "media")[:MEDIA_MAX] if (ids := _medium(medium.find("iso"))) is not None
        ),
    )


def _of_x86(system: "etree._Element", tag: str) -> list["etree._Element"]:
    return [item for item in system.findall(tag) if item.get("arch") in ("x86_64", "all")]


def _text(element: "etree._Element | None") -> str:
    return (element.text or "").strip() if element is not None else ""


def _number(system: "etree._Element", tag: str) -> int:
    """A minimum; where several architectures have their own, x86-64's."""
    for resources in sorted(_of_x86(system, "resources"), key=lambda item: item.get("arch") != "x86_64"):
        text = _text(resources.find(f"minimum/{tag}"))
        if text.isascii() and text.isdigit() and len(text) < 19:
            return int(text)
    return 0


def _medium(iso: "etree._Element | None") -> MediumIds | None:
    """None for a medium that is known by its volume's label alone, and that label says too little to go by."""
    if iso is None:
        return None
    words = {tag: _text(iso.find(f"{tag}-id")) for tag in ("volume", "publisher", "application", "system")}
    if not all(len(word) <= PATTERN_MAX_CHARS and _compiles(word) for word in words.values()):
        return None
    alone = not any(words[tag] for tag in ("publisher", "application", "system"))
    if not words["volume"] or (alone and not re.search(r"\d", words["volume"])):
        return None
    return MediumIds(**words)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _info(entry: _Entry, entries: dict[str, _Entry]) -> OsInfo:
    devices, scripts = _inherited(entry, entries)
    family = _FAMILIES.get(entry.family, OsFamily.OTHER)
    windows = family is OsFamily.WINDOWS
    return OsInfo(
        id=entry.names[0],
        aliases=entry.names[1:],
        name=entry.title,
        family=family,
        source="osinfo-db",
        firmware=Firmware.UEFI if entry.uefi_alone else Firmware.BIOS,
        disk_bus=Bus.VIRTIO if devices & _VIRTIO_BLOCK else Bus.SATA,
        nic_model="virtio" if devices & _VIRTIO_NET else "e1000e" if windows or _E1000E in devices else "rtl8139",
        clock="localtime" if windows else "utc",
        hyperv=windows,
        vmgenid=windows,
        tablet="virtio" if devices & _VIRTIO_BLOCK and not windows else "usb",
        vcpus_min=max(1, min(entry.vcpus, 16)),
        memory_min_mib=min(entry.memory_bytes // MIB, 64 * 1024),
        disk_gib=max(1, min(-(-entry.storage_bytes // GIB), 256)) if entry.storage_bytes else 20,
        unattended=next(
            (kind for part, kind in _SCRIPTS if any(part in script for script in scripts)), Unattended.NONE
        ),
        drivers_iso=windows,
        media=entry.media,
    )


def _inherited(entry: _Entry, entries: dict[str, _Entry]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Devices and scripts along the chain of ancestors; the nearest word counts."""
    devices: set[str] = set()
    without: set[str] = set()
    scripts: list[str] = []
    current: _Entry | None = entry
    for _ in range(ANCESTORS_MAX):
        if current is None:
            break
        devices |= current.devices - without
        without |= current.without
        scripts += current.scripts
        current = entries.get(current.parent)
    return frozenset(devices), tuple(scripts)
