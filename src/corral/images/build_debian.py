"""Debian images made from the distribution's packages: mmdebstrap, a few files of ours, and a bootable disk.

The mirror is the machine's own: a machine that can install packages can build images.
"""

import asyncio
import os
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from corral import proc, qemu_img
from corral.errors import CorralError
from corral.images.apt import ENVIRONMENT, failed
from corral.images.base import Progress
from corral.images.bootdisk import BootDisk, build_bootdisk, require_tools
from corral.images.enclosure import enclosed
from corral.images.sources import Mirror, acquire_options, find_mirror
from corral.model.image import ImageFacts

BUILD_TIMEOUT_S: Final = 1800.0
SIZE_BYTES: Final = 3 * 2**30  # Debian's own cloud images have 3 GiB too; a VM's disk grows from there
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

PACKAGES: Final = (
    # what boots
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd", "systemd-sysv", "udev", "dbus", "libpam-systemd"),
    # what joins the platform
    *("cloud-init", "fdisk", "e2fsprogs", "qemu-guest-agent", "openssh-server"),
    # the network
    *("systemd-resolved", "systemd-timesyncd", "netbase", "iproute2", "iputils-ping", "ca-certificates", "curl"),
    # what people expect at a shell
    *("sudo", "less", "nano", "procps", "bash-completion", "tzdata"),
)
# What later releases took out of their systemd package.
_SPLIT_OFF: Final = {"bookworm": (), "trixie": ("systemd-repart",)}
# Documentation and translations: a third of the files. Packages installed later bring theirs.
_LEFT_OUT: Final = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "force-unsafe-io",
)
# mmdebstrap's own words for where it is, and how far that is of the whole.
_MILESTONES: Final = (
    ("running apt-get update", "reading the mirror's lists", 0.02),
    ("downloading packages", "downloading the base packages", 0.08),
    ("extracting archives", "unpacking the base packages", 0.15),
    ("installing essential packages", "installing the base packages", 0.2),
    ("installing remaining packages", "installing packages", 0.35),
    ("cleaning package lists", "cleaning up", 0.75),
)
_ENABLED: Final = ("systemd-networkd.service", "systemd-resolved.service", "ssh.service", "systemd-timesyncd.timer")
_DISABLED: Final = ("systemd-timesyncd.service",)  # its timer starts it
# Timers and services that do nothing for a VM but slow its first minute.
_MASKED: Final = ("e2scrub_reap.service", "e2scrub_all.timer", "systemd-pstore.service")

# Programs that systemd asks at each boot for units; this one, of Debian 13, complains where there is no AF_VSOCK.
_NO_GENERATORS: Final = ("systemd-ssh-generator",)


@dataclass(frozen=True)
class DebianRelease:
    """One Debian: `suite` is its code name, `os_id` libosinfo's short id."""

    name: str
    suite: str
    os_id: str
    title: str
    memory_min_mib: int


async def build_debian(release: DebianRelease, into: Path, work: Path, progress: Progress) -> ImageFacts:
    """Write `disk.qcow2` into the directory `into`; `work` is scratch. Returns the facts, without the digest.

    Raises `image-build-failed`, `disk-full`, `command-missing`.
    """
    try:
        return await _build(release, into, work, progress)
    except CorralError as error:
        raise failed(f"build image {release.name}", error) from error


async def _build(release: DebianRelease, into: Path, work: Path, progress: Progress) -> ImageFacts:
    if os.geteuid() != 0:
        raise CorralError(
            "image-build-failed", "run mmdebstrap", "it needs root", "build as root, or download the vendor's image"
        )
    proc.require("mmdebstrap", "mmdebstrap")
    proc.require("qemu-img", "qemu-utils")
    require_tools()
    mirror = await asyncio.to_thread(find_mirror, release.suite)
    root = work / "root"
    await _bootstrap(release, mirror, root, work, progress)
    await progress("adding Corral's files", 0.78)
    await asyncio.to_thread(_finish_tree, root, release, mirror)
    await _enable(root)
    await progress("making the disk", 0.82)
    disk = BootDisk(work / "disk.raw", SIZE_BYTES)
    await build_bootdisk(disk, root, work)
    await progress("converting the disk", 0.94)
    await qemu_img.convert(disk.path, "raw", into / "disk.qcow2", "qcow2")
    await asyncio.to_thread(disk.path.unlink)
    await progress("made", 1.0)
    return ImageFacts(
        digest="",
        os_id=release.os_id,
        disk_virtual_bytes=SIZE_BYTES,
        uefi=True,
        default_user="debian",
        memory_min_mib=release.memory_min_mib,
        description=f"{release.title}, built from the distribution's packages",
    )


async def _bootstrap(release: DebianRelease, mirror: Mirror, root: Path, work: Path, progress: Progress) -> None:
    overlay = work / "overlay"
    await asyncio.to_thread(_copy_tree, resources.files("corral.images") / "debian", overlay)
    options = work / "apt.conf"
    await asyncio.to_thread(options.write_text, await acquire_options())
    packages = ",".join((*PACKAGES, *_SPLIT_OFF.get(release.suite, ())))
    argv = ["mmdebstrap", "--variant=minbase", "--format=directory", f"--include={packages}"]
    argv += [f"--keyring={KEYRING}", f"--aptopt={options}", '--aptopt=APT::Install-Recommends "false"']
    argv += [f"--dpkgopt={word}" for word in _LEFT_OUT]
    # Before the kernel comes, so that its initramfs is made once and small.
    argv.append(f"--essential-hook=copy-in {overlay}/etc/initramfs-tools /etc")
    argv += [release.suite, str(root), *mirror.lines(release.suite)]
    async for line in proc.lines(enclosed(argv), timeout_s=BUILD_TIMEOUT_S, env=ENVIRONMENT):
        for words, phase, part in _MILESTONES:
            if words in line:
                await progress(phase, part)


async def _enable(root: Path) -> None:
    for verb, units in (("enable", _ENABLED), ("disable", _DISABLED), ("mask", _MASKED)):
        await proc.run(enclosed(["chroot", str(root), "systemctl", verb, *units]), env=ENVIRONMENT)


def _finish_tree(root: Path, release: DebianRelease, mirror: Mirror) -> None:
    """Our files, and nothing that two machines must not share: machine id, SSH host keys, random seed."""
    _copy_tree(resources.files("corral.images") / "debian", root)
    (root / "boot/efi").mkdir(parents=True, exist_ok=True)
    for name in _NO_GENERATORS:
        (root / "etc/systemd/system-generators").mkdir(parents=True, exist_ok=True)
        (root / "etc/systemd/system-generators" / name).symlink_to("/dev/null")
    for path in (*root.glob("etc/ssh/ssh_host_*"), *root.glob("etc/apt/apt.conf.d/99mmdebstrap")):
        path.unlink()
    leftovers = ("etc/dpkg/dpkg.cfg.d/99mmdebstrap", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed")
    for name in (*leftovers, "etc/hostname", "etc/resolv.conf", "etc/apt/sources.list"):
        (root / name).unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("")  # empty: made at the first boot, without first-boot questions
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
    (root / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in mirror.lines(release.suite)))
    (root / "etc/apt/sources.list").chmod(0o644)
    for directory in ("var/log", "var/cache/apt", "tmp", "run"):
        _empty_files(root / directory)


def _empty_files(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.unlink()


def _copy_tree(source: Traversable, target: Path) -> None:
    """Package data to files; what starts with `#!` may be executed."""
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o755)
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir():
            _copy_tree(entry, place)
            continue
        content = entry.read_bytes()
        place.unlink(missing_ok=True)
        place.write_bytes(content)
        place.chmod(0o755 if content.startswith(b"#!") else 0o644)
