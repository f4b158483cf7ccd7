"""A template is frozen, in libvirt's calls: blocking functions around a passing guest, the maker."""

import os
import shutil
from pathlib import Path
from typing import Final

import libvirt
from lxml.etree import _Element, tostring

from corral.errors import CorralError
from corral.files import allocated_bytes, storage_error, write_atomic
from corral.hypervisor.base import DomainDisk
from corral.hypervisor.forking import Freeze
from corral.hypervisor.libvirt import confinement, fork_document, fork_memory, monitor, reading
from corral.hypervisor.libvirt.domains import find_by_uid
from corral.hypervisor.libvirt.fork_start import CARDS, DOCUMENT, MEMORY, NVRAM, STATE
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.saved_image import copy_saved_image, read_saved_image

_SAVED: Final = ".saved"
_BALLOON: Final = "balloon0"
_DESCRIPTOR: Final = "corral-state"
# Guests answer in half a second, where they run at all; one under emulation on a busy host gets longer.
UNPLUG_S: Final = 30.0
MIGRATE_S: Final = 60.0


def start_maker(handle: libvirt.virConnect, freeze: Freeze, host: Host) -> None:
    """From the saved memory; what an earlier try left is thrown away."""
    destroy_maker(handle, freeze.uid)
    directory, run_dir = freeze.directory, freeze.run_dir
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(f"make {directory}", error) from error
    saved = read_saved_image(freeze.saved).document
    before = parse_document(saved)
    owner = reading.dac_owner_of(before)
    sockets = run_dir / "maker"
    confinement.ensure_run_dir(str(sockets), owner)
    for disk in freeze.disks:
        _give(Path(disk.path), owner)
    nvram = _variables(before, freeze, owner)
    log = str(sockets / "console.log")
    text = fork_document.maker_document(saved, freeze.uid, freeze.disks, str(sockets), log, nvram)
    places = fork_document.card_places(before)
    write_atomic(directory / CARDS, tostring(places))
    copy_saved_image(freeze.saved, directory / _SAVED, text)
    handle.restoreFlags(str(directory / _SAVED), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)


def _variables(before: _Element, freeze: Freeze, owner: tuple[int, int] | None) -> str:
    """The maker's own copy of the UEFI variables; empty for a guest without."""
    element = before.find("os/nvram")
    if element is None:
        return ""
    source = freeze.nvram or Path(element.text or "")
    path = freeze.run_dir / "maker" / NVRAM
    try:
        write_atomic(path, source.read_bytes())
    except OSError as error:
        raise storage_error(f"read {source}", error) from error
    _give(path, owner)
    return str(path)


def _give(path: Path, owner: tuple[int, int] | None) -> None:
    """The maker runs as the guest did whose memory it has."""
    try:
        if owner is not None:
            os.chown(path, *owner, follow_symlinks=False)
    except OSError as error:
        raise storage_error(f"give {path} to uid {owner}", error) from error


def destroy_maker(handle: libvirt.virConnect, uid: str) -> None:
    domain = find_by_uid(handle, uid)
    if domain is not None:
        domain.destroy()


def unplug(domain: libvirt.virDomain) -> None:
    """Cards carry an address that is one machine's alone. A balloon would give pages back that forks share: QEMU punches
    holes into them."""
    for card in parse_document(domain.XMLDesc(0)).iterfind("devices/interface"):
        domain.detachDeviceFlags(tostring(card, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    if _BALLOON in _devices(domain):
        monitor.ask(domain, "device_del", id=_BALLOON)  # libvirt has no call for it

    def gone() -> bool:
        found = _devices(domain)
        return _BALLOON not in found and not any(name.startswith("ua-nic-") for name in found)

    reason = "the guest does not let go of its network cards and its balloon"
    monitor.wait_until(gone, UNPLUG_S, "freeze the guest", reason)


def _devices(domain: libvirt.virDomain) -> frozenset[str]:
    found = monitor.ask(domain, "qom-list", path="/machine/peripheral")
    return frozenset(str(device["name"]) for device in found)


def keep(domain: libvirt.virDomain, directory: Path) -> tuple[int, str, int]:
    """Everything that forks need, on disk: how much memory, its digest, and what the files take."""
    domain.suspend()
    document = parse_document(domain.XMLDesc(0))
    size_bytes = reading.memory_mib(document, "memory") << 20
    _write_state(domain, directory / STATE, size_bytes)
    pid = fork_memory.pid_of(domain.name())
    if pid is None:
        raise CorralError("hypervisor-error", "freeze the guest", "it has ended")
    memory = directory / MEMORY
    memory.unlink(missing_ok=True)
    digest = fork_memory.copy_guest_memory(pid, size_bytes, memory)
    if (variables := document.findtext("os/nvram")) is not None:
        write_atomic(directory / NVRAM, Path(variables).read_bytes())
    write_atomic(directory / DOCUMENT, fork_document.template_document(document).encode())
    domain.destroy()
    (directory / _SAVED).unlink(missing_ok=True)
    stored = sum(allocated_bytes(path) for path in directory.iterdir())
    return size_bytes, digest, stored


def _write_state(domain: libvirt.virDomain, path: Path, size_bytes: int) -> None:
    monitor.ignore_shared_memory(domain, on=True)
    raw = path.with_name(f".{STATE}")
    raw.unlink(missing_ok=True)
    descriptor = os.open(raw, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        monitor.hand_over(domain, _DESCRIPTOR, descriptor)
        monitor.ask(domain, "migrate", uri=f"fd:{_DESCRIPTOR}")

        def ended() -> bool:
            return monitor.ask(domain, "query-migrate").get("status") in ("completed", "failed", "cancelled")

        monitor.wait_until(ended, MIGRATE_S, "freeze the guest", "QEMU did not write its state")
        if monitor.ask(domain, "query-migrate")["status"] != "completed":
            raise CorralError("hypervisor-error", "freeze the guest", "QEMU did not write its state")
    finally:
        os.close(descriptor)
    write_atomic(path, fork_memory.rename_memory(raw.read_bytes(), size_bytes, fork_document.MEMORY_ID))
    raw.unlink()


def give_back(disks: tuple[DomainDisk, ...], host: Host) -> None:
    """The maker's disks are frozen: root's, and every QEMU of Corral's may read them, as with all that lies below a head."""
    for disk in disks:
        try:
            if host.privileged:
                os.chown(disk.path, 0, host.dac_gid, follow_symlinks=False)
                Path(disk.path).chmod(0o440)
        except OSError as error:
            raise storage_error(f"freeze {disk.path}", error) from error
