"""A bootable GPT disk around a root tree, for BIOS and UEFI, made with file tools alone: no loop device, no mount.

Partitions: 1 BIOS boot (GRUB's core image), 2 EFI system (GRUB at the removable path), 3 root (last, so that it grows).
"""

import asyncio
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral import proc
from corral.errors import CorralError

SECTOR_BYTES: Final = 512
ROOT_LABEL: Final = "root"

# In sectors. 1 MiB alignment throughout.
BIOS_START: Final = 2048
BIOS_SECTORS: Final = 2048
ESP_START: Final = BIOS_START + BIOS_SECTORS
ESP_SECTORS: Final = 64 * 2048
ROOT_START: Final = ESP_START + ESP_SECTORS

# Partition types of the UEFI specification, GRUB's manual and the Discoverable Partitions Specification.
_TYPE_BIOS_BOOT: Final = "21686148-6449-6E6F-744E-656564454649"
_TYPE_ESP: Final = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_TYPE_ROOT_X86_64: Final = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"

# GRUB's i386-pc images (its manual and boot/i386/pc/*.S describe them): boot.img holds at 0x5c the sector of the core
# image, at 0x64 the boot drive (0xff: the one the BIOS booted) and at 0x66 a jump that hard disks replace by two
# no-operations. The core's first sector ends with a list of blocks to load: u64 sector, u16 count, u16 segment.
_BOOT_CODE_BYTES: Final = 440
_KERNEL_SECTOR_OFFSET: Final = 0x5C
_BOOT_DRIVE_OFFSET: Final = 0x64
_DRIVE_CHECK_OFFSET: Final = 0x66
_BLOCK_LIST_OFFSET: Final = SECTOR_BYTES - 12

_GRUB_MODULES: Final = (
    *("part_gpt", "ext2", "normal", "linux", "search", "search_label", "configfile", "serial", "terminal", "echo"),
    *("test", "ls", "cat", "reboot", "halt", "boot", "minicmd", "sleep", "true", "loadenv", "gzio"),
)
_PLATFORM_MODULES: Final = {"i386-pc": ("biosdisk",), "x86_64-efi": ("efi_gop", "efi_uga")}
_EARLY_CONFIG: Final = f"search --no-floppy --label {ROOT_LABEL} --set=root\nset prefix=($root)/boot/grub\n"


@dataclass(frozen=True)
class BootDisk:
    """Where the disk is made, and how large a guest sees it."""

    path: Path
    size_bytes: int

    @property
    def root_sectors(self) -> int:
        # The last MiB holds the second partition table (33 sectors), aligned down.
        return self.size_bytes // SECTOR_BYTES - ROOT_START - 2048


def require_tools() -> None:
    """Raise `command-missing` for the first tool that is not installed."""
    for program, package in (
        ("sfdisk", "fdisk"),
        ("mke2fs", "e2fsprogs"),
        ("mformat", "mtools"),
        ("mcopy", "mtools"),
        ("grub-mkimage", "grub-common"),
    ):
        proc.require(program, package)
    for platform, package in (("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")):
        if not Path("/usr/lib/grub", platform, "moddep.lst").exists():
            raise CorralError(
                "command-missing", f"make a boot loader for {platform}", "not installed", f"apt-get install {package}"
            )


async def build_bootdisk(disk: BootDisk, root: Path, work: Path) -> None:
    """Write the raw, sparse disk. `root` is the tree of the root file system, with /boot/grub/grub.cfg in it."""
    await asyncio.to_thread(_make_sparse, disk)
    await _partition(disk)
    await _fill_root(disk, root)
    await _install_efi(disk, await _grub_image("x86_64-efi", work))
    core = await _grub_image("i386-pc", work)
    boot = Path("/usr/lib/grub/i386-pc/boot.img")
    await asyncio.to_thread(_install_bios, disk, boot, core)


def _make_sparse(disk: BootDisk) -> None:
    with disk.path.open("wb") as stream:
        stream.truncate(disk.size_bytes)


async def _partition(disk: BootDisk) -> None:
    script = (
        "label: gpt\n"
        f"start={BIOS_START}, size={BIOS_SECTORS}, type={_TYPE_BIOS_BOOT}, name=bios\n"
        f"start={ESP_START}, size={ESP_SECTORS}, type={_TYPE_ESP}, name=efi\n"
        f"start={ROOT_START}, size={disk.root_sectors}, type={_TYPE_ROOT_X86_64}, name=root\n"
    )
    argv = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk.path)]
    await proc.run(argv, stdin=script.encode())


async def _fill_root(disk: BootDisk, root: Path) -> None:
    # The features that GRUB 2.06 and Debian 12's e2fsck do not know are off, whatever the builder's defaults are.
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", ROOT_LABEL, "-m", "1", "-O", "^metadata_csum_seed,^orphan_file"]
    extended = f"offset={ROOT_START * SECTOR_BYTES},assume_storage_prezeroed=1,nodiscard"
    argv += ["-E", extended, "-d", str(root), str(disk.path), f"{disk.root_sectors // 2}k"]
    await proc.run(argv, timeout_s=600)


async def _grub_image(platform: str, work: Path) -> Path:
    config = work / "early.cfg"
    await asyncio.to_thread(config.write_text, _EARLY_CONFIG)
    target = work / f"grub-{platform}.img"
    argv = ["grub-mkimage", "-O", platform, "-o", str(target), "-c", str(config), "-p", "/boot/grub"]
    await proc.run([*argv, *_GRUB_MODULES, *_PLATFORM_MODULES[platform]])
    return target


async def _install_efi(disk: BootDisk, image: Path) -> None:
    # `@@` is mtools' own notation for an offset into a disk image.
    partition = f"{disk.path}@@{ESP_START * SECTOR_BYTES}"
    await proc.run(["mformat", "-i", partition, "-v", "EFI", "-T", str(ESP_SECTORS), "-h", "64", "-s", "32", "::"])
    await proc.run(["mmd", "-i", partition, "::/EFI", "::/EFI/BOOT"])
    await proc.run(["mcopy", "-i", partition, str(image), "::/EFI/BOOT/BOOTX64.EFI"])


def _install_bios(disk: BootDisk, boot: Path, core: Path) -> None:
    """Put boot.img's code beside the protective partition table and the core image into its partition."""
    boot_code, core_image = bytearray(boot.read_bytes()), bytearray(core.read_bytes())
    if len(core_image) > BIOS_SECTORS * SECTOR_BYTES:
        raise CorralError("image-build-failed", "embed GRUB", "its core image is larger than its partition")
    struct.pack_into("<Q", boot_code, _KERNEL_SECTOR_OFFSET, BIOS_START)
    boot_code[_BOOT_DRIVE_OFFSET] = 0xFF
    boot_code[_DRIVE_CHECK_OFFSET : _DRIVE_CHECK_OFFSET + 2] = b"\x90\x90"
    sectors = -(-len(core_image) // SECTOR_BYTES) - 1
    _, _, segment = struct.unpack_from("<QHH", core_image, _BLOCK_LIST_OFFSET)
    struct.pack_into("<QHH", core_image, _BLOCK_LIST_OFFSET, BIOS_START + 1, sectors, segment)
    fd = os.open(disk.path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, bytes(boot_code[:_BOOT_CODE_BYTES]), 0)
        os.pwrite(fd, bytes(core_image), BIOS_START * SECTOR_BYTES)
    finally:
        os.close(fd)
