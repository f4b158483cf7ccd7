"""What of a guest's lies beside its disks, UEFI variables and a TPM's state: kept with a point in time, and put back. Blocking."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lxml.etree import _Element

from corral import files
from corral.hypervisor.libvirt.host import Host

NVRAM_FILE: Final = "nvram.fd"
TPM_DIR: Final = "tpm"


def kept_files(document: _Element, uid: str, host: Host) -> tuple[tuple[str, Path], ...]:
    """What of the guest's lies beside its disks: its name among us, and the place."""
    found = []
    if nvram := document.findtext("os/nvram"):
        found.append(("nvram", Path(nvram)))
    if document.find("devices/tpm") is not None and host.privileged:
        found.append(("tpm", Path(host.tpm_state(uid))))
    return tuple(found)


def keep(kept: Sequence[tuple[str, Path]], directory: Path) -> tuple[str, ...]:
    names = []
    try:
        for name, place in kept:
            if not place.exists():
                continue
            if name == "nvram":
                files.write_atomic(directory / NVRAM_FILE, place.read_bytes())
            else:
                shutil.rmtree(directory / TPM_DIR, ignore_errors=True)
                shutil.copytree(place, directory / TPM_DIR)
            names.append(name)
    except OSError as error:
        raise files.storage_error(f"keep a guest's firmware variables in {directory}", error) from error
    return tuple(names)


def put_back(
    places: Sequence[tuple[str, Path]], directory: Path, kept: Sequence[str], owner: tuple[int, int] | None
) -> None:
    try:
        for name, place in places:
            if name not in kept:
                continue
            if name == "nvram":
                files.write_atomic(place, (directory / NVRAM_FILE).read_bytes())
                found = [place]
            else:
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(directory / TPM_DIR, place)
                place.chmod(0o700)
                found = [place, *place.rglob("*")]
            for path in found if owner is not None else ():
                shutil.chown(path, *owner)  # type: ignore[misc]
    except OSError as error:
        raise files.storage_error(f"put a guest's firmware variables back from {directory}", error) from error
