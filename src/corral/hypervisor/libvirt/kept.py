"""What of a guest's lies beside its disks, UEFI variables and a TPM's state: kept with a point in time, and put back. Blocking."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lxml.etree import _Element

from corral import files
from corral.errors import CorralError
from corral.hypervisor.libvirt.host import Host

MEMORY_FILE: Final = "memory"
NVRAM_FILE: Final = "nvram.fd"
TPM_DIR: Final = "tpm"
STEADY_TRIES: Final = 5
_NVRAM_BEGUN: Final = ".nvram.fd.tmp"


def kept_files(document: _Element, uid: str, host: Host) -> tuple[tuple[str, Path], ...]:
    """What of the guest's lies beside its disks: its name among us, and the place."""
    found = []
    if nvram := document.findtext("os/nvram"):
        found.append(("nvram", Path(nvram)))
    if document.find("devices/tpm") is not None and host.privileged:
        found.append(("tpm", Path(host.tpm_state(uid))))
    return tuple(found)


def keep(kept: Sequence[tuple[str, Path]], directory: Path) -> tuple[str, ...]:
    """Quickly, since a guest stands still for it; `make_durable` follows once it runs."""
    names = []
    try:
        for name, place in kept:
            if not place.exists():
                continue
            if name == "nvram":
                shutil.copyfile(place, directory / _NVRAM_BEGUN)
                (directory / _NVRAM_BEGUN).chmod(0o600)
                (directory / _NVRAM_BEGUN).rename(directory / NVRAM_FILE)
            else:
                shutil.rmtree(directory / TPM_DIR, ignore_errors=True)
                shutil.copytree(place, directory / TPM_DIR)
            names.append(name)
    except OSError as error:
        raise files.storage_error(f"keep a guest's firmware variables in {directory}", error) from error
    return tuple(names)


def keep_steady(kept: Sequence[tuple[str, Path]], directory: Path) -> tuple[str, ...]:
    """Of a guest that runs: what it writes meanwhile is copied once more."""
    for _ in range(STEADY_TRIES):
        names = keep(kept, directory)
        copies = {"nvram": directory / NVRAM_FILE, "tpm": directory / TPM_DIR}
        if all(_content(place) == _content(copies[name]) for name, place in kept if name in names):
            return names
    reason = "the guest writes its firmware variables, or its TPM, all the time"
    raise CorralError("wrong-state", "take a point in time", reason, "try again, or leave --quiesce out")


def _content(place: Path) -> dict[str, bytes]:
    try:
        found = place.rglob("*") if place.is_dir() else (place,)
        return {path.name if path != place else "": path.read_bytes() for path in found if path.is_file()}
    except OSError as error:
        raise files.storage_error(f"read {place}", error) from error


def make_durable(directory: Path) -> None:
    """What was written there for a point in time."""
    tpm = directory / TPM_DIR
    try:
        for path in (directory / MEMORY_FILE, directory / NVRAM_FILE, *tpm.rglob("*"), tpm, directory):
            if path.exists():
                (files.fsync_dir if path.is_dir() else files.fsync_file)(path)
    except OSError as error:
        raise files.storage_error(f"write {directory}", error) from error


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
