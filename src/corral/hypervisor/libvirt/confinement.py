"""Files and directories for a QEMU that runs under its own uid."""

import os
import shutil
import stat
from pathlib import Path
from typing import Final, Literal

from corral.errors import CorralError
from corral.files import check_not_others, storage_error, write_atomic
from corral.hypervisor.base import DomainDefinition, DomainDisk
from corral.hypervisor.libvirt.host import Host
from corral.hypervisor.libvirt.kept import NVRAM_FILE, TPM_DIR

# libvirt's private directory: QEMU must pass through it to its own sub-directory.
LIBVIRT_DIR: Final = Path("/var/lib/libvirt/qemu")
KVM_DEVICE: Final = Path("/dev/kvm")
CPU_INFO: Final = Path("/proc/cpuinfo")
# libvirt's daemon on this machine that runs as root, by its usual socket or by another.
_SYSTEM_URIS: Final = ("qemu:///system", "qemu+unix:///system")


def find_host(uri: str) -> Host:
    """How guests are confined under `uri`.

    A private uid is in no group but the one it is given. That must open /dev/kvm (group `kvm`) and pass through
    libvirt's directory (group `libvirt-qemu` on Debian, 0750). Where both are needed, the directory is opened for passing
    (0751, as other distributions ship it).
    """
    nested = _nested_feature()
    if not uri.startswith(_SYSTEM_URIS) or os.geteuid() != 0:
        return Host(privileged=False, nested_feature=nested)
    try:
        directory = LIBVIRT_DIR.stat()
    except OSError:
        return Host(privileged=True, dac_gid=0, nested_feature=nested)
    gid = directory.st_gid
    try:
        device = KVM_DEVICE.stat()
    except OSError:
        return Host(privileged=True, dac_gid=gid, nested_feature=nested)
    needs_group = not device.st_mode & stat.S_IWOTH and bool(device.st_mode & stat.S_IWGRP) and device.st_gid != 0
    if needs_group and device.st_gid != gid:
        _open_for_passing(LIBVIRT_DIR, directory.st_mode)
        gid = device.st_gid
    return Host(privileged=True, dac_gid=gid, nested_feature=nested)


def _nested_feature() -> Literal["vmx", "svm"]:
    """AMD's word or Intel's."""
    try:
        return "svm" if "AuthenticAMD" in CPU_INFO.read_text() else "vmx"
    except OSError:
        return "vmx"


def _open_for_passing(directory: Path, mode: int) -> None:
    if mode & stat.S_IXOTH:
        return
    try:
        directory.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
    except OSError as error:
        raise storage_error(f"let guests pass through {directory}", error) from error


def ensure_run_dir(run_dir: str, owner: tuple[int, int] | None) -> None:
    """The VM's socket directory: QEMU's own, closed to others; its parent lets QEMU pass."""
    path = Path(run_dir)
    try:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if owner is not None:
            check_not_others(path.parent, f"make {run_dir}")
            path.parent.chmod(stat.S_IMODE(path.parent.stat().st_mode) | stat.S_IXOTH)
            os.chown(path, *owner, follow_symlinks=False)
    except OSError as error:
        raise storage_error(f"make {run_dir}", error) from error


def prepare_files(definition: DomainDefinition, host: Host) -> None:
    """All that QEMU opens can be opened by it; raises `storage-error` where the user has to see to that."""
    check_readable(definition, host)
    give_files(definition, host)
    share_layers(definition, host)
    ensure_nvram(definition, host)
    take_tpm(definition, host)


def give_files(definition: DomainDefinition, host: Host) -> None:
    """Hand the VM's own disks and seed to its uid; shared images stay root's. The mode shuts out everybody else."""
    if not host.privileged or definition.dac_uid is None:
        return
    owner = (definition.dac_uid, host.dac_gid)
    paths = [disk.path for disk in definition.disks if disk.path and not disk.shared_image and not _is_for_all(disk)]
    if definition.seed_path is not None:
        paths.append(definition.seed_path)
    for path in paths:
        give(Path(path), owner)


def share_layers(definition: DomainDefinition, host: Host) -> None:
    """What its disks lie on may have been made for another VM, or a template, and never been a guest's yet."""
    if not host.privileged or definition.dac_uid is None:
        return
    for path in {path for disk in definition.disks for path, _format in disk.backing}:
        share(Path(path), host.dac_gid)


def _is_for_all(disk: DomainDisk) -> bool:
    """What is only read and everybody may read, such as an installer's ISO that many VMs share, stays whose it is."""
    try:
        return (disk.read_only or disk.device == "cdrom") and bool(Path(disk.path).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def give(path: Path, owner: tuple[int, int]) -> None:
    """Not through a symbolic link: a disk given by path may lie where somebody else can write."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise storage_error(f"open {path}", error) from error
    try:
        now = os.fstat(fd)
        if stat.S_ISREG(now.st_mode) and (now.st_uid, now.st_gid) != owner:
            os.fchown(fd, *owner)
            os.fchmod(fd, stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:
        raise storage_error(f"give {path} to uid {owner[0]}", error) from error
    finally:
        os.close(fd)


def share(path: Path, gid: int) -> None:
    """A layer that nobody writes any more: root's, for QEMUs to read. What is root's already stays as it is."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise storage_error(f"open {path}", error) from error
    try:
        now = os.fstat(fd)
        if stat.S_ISREG(now.st_mode) and (now.st_uid != 0 or stat.S_IMODE(now.st_mode) == stat.S_IRUSR | stat.S_IWUSR):
            os.fchown(fd, 0, gid)
            os.fchmod(fd, stat.S_IRUSR | stat.S_IRGRP)
    except OSError as error:
        raise storage_error(f"share {path}", error) from error
    finally:
        os.close(fd)


def check_readable(definition: DomainDefinition, host: Host) -> None:
    """A medium or a kernel of the user's is never given away, nor opened to others: QEMU, under a uid of its own, must
    be able to read it as it is."""
    if not host.privileged or definition.dac_uid is None:
        return
    paths = [disk.path for disk in definition.disks if disk.device == "cdrom" and disk.path]
    if (kernel := definition.hardware.kernel) is not None:
        paths += [path for path in (kernel.kernel, kernel.initrd) if path]
    for path in paths:
        if (closed := _closed_part(Path(path))) is not None:
            raise CorralError(
                "storage-error",
                f"open {path}",
                f"{closed} is closed to others, and each VM's QEMU runs as a user of its own",
                f"corral image import {path} keeps a copy that VMs can read; or put it where everybody may read it",
            )


def _closed_part(path: Path) -> Path | None:
    """The first directory on the way that others may not pass, or the file if they may not read it."""
    try:
        for directory in reversed(path.parents):
            if not directory.stat().st_mode & stat.S_IXOTH:
                return directory
        return None if path.stat().st_mode & stat.S_IROTH else path
    except OSError as error:
        raise storage_error(f"open {path}", error) from error


def ensure_nvram(definition: DomainDefinition, host: Host) -> None:
    """UEFI variables of the VM's own, copied once, from the VM that it comes from or the firmware's template: with relabelling off, libvirt would
    make them its own user's, unreadable for this QEMU."""
    if definition.firmware != "uefi" or not host.privileged or definition.dac_uid is None:
        return
    secure = definition.hardware.secure_boot
    path, template = Path(host.nvram(definition.uid, secure=secure)), Path(host.nvram_template(secure=secure))
    inherited = Path(definition.begins_with, NVRAM_FILE)
    if definition.begins_with and inherited.exists():
        template = inherited
    try:
        if not path.exists():
            # The directory is libvirt's QEMU user's own: nothing that lies there already is written to or through.
            write_atomic(path, template.read_bytes())
    except OSError as error:
        raise storage_error(f"read {template}", error) from error
    give(path, (definition.dac_uid, host.dac_gid))


def take_tpm(definition: DomainDefinition, host: Host) -> None:
    """A TPM that keeps its identity has the state of the one that it comes from; every other is made at its first start."""
    kept = Path(definition.begins_with, TPM_DIR)
    if not definition.begins_with or not kept.is_dir() or not host.privileged or definition.dac_uid is None:
        return
    state = Path(host.tpm_state(definition.uid))
    if state.exists():
        return
    temporary = state.with_name(f".{state.name}.tmp")
    try:
        state.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(kept, temporary)
        temporary.chmod(0o700)
        for path in (temporary, *temporary.rglob("*")):
            os.chown(path, definition.dac_uid, host.dac_gid, follow_symlinks=False)
        temporary.rename(state)
    except OSError as error:
        raise storage_error(f"give {definition.name} its TPM's state", error) from error


def remove_nvram(uid: str, host: Host) -> None:
    """Both files of a VM that was once with and once without secure boot; libvirt removes the last one alone."""
    for secure in (True, False):
        path = Path(host.nvram(uid, secure=secure))
        try:
            for found in (path, *path.parent.glob(f".{path.name}.*.tmp")):  # a crash may have left one half written
                found.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(f"remove the UEFI variables of {uid}", error) from error
