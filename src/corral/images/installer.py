"""An installer's kernel and initrd, out of a directory, an ISO or a publisher's tree, as a medium that boots by itself.

With it, an installation needs neither a boot order that somebody edits nor a kernel that would start again at the guest's
first reboot: the disk is tried first, and this medium only as long as the disk is empty.
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urljoin, urlsplit

from corral import proc
from corral.errors import CorralError
from corral.images.base import Progress
from corral.images.download import Download, fetch_plain
from corral.images.importer import take_copy
from corral.images.iso import IsoReader
from corral.images.iso_import import iso_facts
from corral.model.image import ImageFacts, ImageSpec
from corral.names import MIB

VOLUME_ID: Final = "CORRAL_INSTALL"
KERNEL_MAX_BYTES: Final = 64 * MIB
INITRD_MAX_BYTES: Final = 1024 * MIB
GRUB_TIMEOUT_S: Final = 600.0
_NOT_FOUND: Final = 404

# Where distributions keep an installer's kernel and initrd below the root of a medium or a tree.
PLACES: Final[Sequence[tuple[str, str]]] = (
    ("install.amd/vmlinuz", "install.amd/initrd.gz"),  # Debian's media
    ("debian-installer/amd64/linux", "debian-installer/amd64/initrd.gz"),  # its netboot tree
    ("current/images/netboot/debian-installer/amd64/linux", "current/images/netboot/debian-installer/amd64/initrd.gz"),
    (
        "main/installer-amd64/current/images/netboot/debian-installer/amd64/linux",
        "main/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz",
    ),
    ("casper/vmlinuz", "casper/initrd"),  # Ubuntu
    ("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"),  # Fedora, RHEL and its kin
    ("boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"),  # openSUSE
    ("arch/boot/x86_64/vmlinuz-linux", "arch/boot/x86_64/initramfs-linux.img"),
    ("boot/vmlinuz-lts", "boot/initramfs-lts"),  # Alpine
    ("boot/vmlinuz-virt", "boot/initramfs-virt"),
    ("linux", "initrd.gz"),
    ("vmlinuz", "initrd.img"),
    ("vmlinuz", "initrd"),
    ("kernel", "initrd"),
)

_GRUB: Final = """\
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=0
set default=0
menuentry 'Install' {{
  echo 'Loading the installer ...'
  linux /boot/linux {arguments}
  initrd /boot/initrd
}}
"""


class Tree(Protocol):
    """A place that files are taken out of."""

    async def take(self, path: str, target: Path, max_bytes: int) -> bool:
        """Copy the file; False if there is none of that path."""
        ...


@dataclass(frozen=True)
class Directory:
    root: Path

    async def take(self, path: str, target: Path, max_bytes: int) -> bool:
        source = self.root / path
        if ".." in Path(path).parts or not await asyncio.to_thread(source.is_file):
            return False
        resolved = await asyncio.to_thread(source.resolve)
        if resolved.stat().st_size > max_bytes:
            raise _too_large(path, max_bytes)
        await take_copy(resolved, target)
        return True


@dataclass(frozen=True)
class Medium:
    reader: IsoReader

    async def take(self, path: str, target: Path, max_bytes: int) -> bool:
        return await asyncio.to_thread(self._take, path, target, max_bytes)

    def _take(self, path: str, target: Path, max_bytes: int) -> bool:
        if not self.reader.has(path):
            return False
        with target.open("wb") as stream:
            self.reader.extract(path, stream, max_bytes)
        return True


@dataclass(frozen=True)
class Site:
    url: str

    async def take(self, path: str, target: Path, max_bytes: int) -> bool:
        url = urljoin(self.url.rstrip("/") + "/", path)
        try:
            await fetch_plain(Download(url, "", target, max_bytes))
        except CorralError as error:
            if error.context.get("status") == _NOT_FOUND:
                return False
            raise
        return True


async def build_installer(spec: ImageSpec, target: Path, work: Path, progress: Progress) -> ImageFacts:
    """Write the medium. Raises `image-invalid` where no kernel is found, `download-failed`, `command-missing`."""
    for program, package in (("grub-mkrescue", "grub-common"), ("xorriso", "xorriso"), ("mformat", "mtools")):
        proc.require(program, package)
    root = work / "root"
    await asyncio.to_thread(lambda: (root / "boot" / "grub").mkdir(parents=True))
    with ExitStack() as stack:
        tree = await asyncio.to_thread(_open_tree, spec.path, stack)
        await progress("fetching the installer's kernel", None)
        await _take_kernel(tree, spec, root / "boot")
    if spec.staged:
        await asyncio.to_thread(_append, root / "boot" / "initrd", Path(spec.staged))
    config = _GRUB.format(arguments=grub_words(spec.cmdline))
    await asyncio.to_thread((root / "boot" / "grub" / "grub.cfg").write_text, config)
    await progress("making the medium", None)
    argv = ["grub-mkrescue", "-o", str(target), str(root), "--", "-volid", VOLUME_ID]
    await proc.run(argv, timeout_s=GRUB_TIMEOUT_S, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(work)})
    return await asyncio.to_thread(iso_facts, target, f"the installer of {spec.path[:200]}")


def _open_tree(place: str, stack: ExitStack) -> Tree:
    if urlsplit(place).scheme in ("http", "https"):
        return Site(place)
    path = Path(place)
    try:
        if path.is_dir():
            return Directory(path)
        return Medium(IsoReader(stack.enter_context(path.open("rb")), path.name))
    except OSError as error:
        raise CorralError(
            "image-invalid",
            f"read {place[:200]}",
            error.strerror or str(error),
            "name a directory, an ISO file or an https URL",
        ) from error


async def _take_kernel(tree: Tree, spec: ImageSpec, boot: Path) -> None:
    places = ((spec.kernel, spec.initrd),) if spec.kernel and spec.initrd else PLACES
    for kernel, initrd in places:
        if await tree.take(kernel, boot / "linux", KERNEL_MAX_BYTES):
            if await tree.take(initrd, boot / "initrd", INITRD_MAX_BYTES):
                return
            (boot / "linux").unlink()
    looked = "; ".join(f"{kernel} with {initrd}" for kernel, initrd in places[:3])
    raise CorralError(
        "image-invalid",
        f"install from {spec.path[:200]}",
        f"no kernel and initrd are there (looked for {looked}{' …' if len(places) > 3 else ''})",
        "name them: --location PLACE,kernel=path/of/vmlinuz,initrd=path/of/initrd",
    )


def _append(initrd: Path, archive: Path) -> None:
    """A second archive after the first, on a 4-byte boundary, where the kernel looks for it (initramfs buffer format).
    A whole word of zeros ends an archive in LZ4: without one, what follows would be taken for its next block."""
    with initrd.open("r+b") as stream:
        length = stream.seek(0, 2)
        stream.write(b"\0" * (-length % 4 + 4) + archive.read_bytes())


def grub_words(cmdline: str) -> str:
    """Kernel arguments as GRUB's shell takes them literally: each word in single quotes."""
    if "'" in cmdline or not cmdline.isprintable():
        raise CorralError(
            "invalid-argument", "kernel arguments", "they hold a quotation mark or a control character", "leave it out"
        )
    return " ".join(f"'{word}'" for word in cmdline.split())


def _too_large(path: str, max_bytes: int) -> CorralError:
    return CorralError("image-invalid", f"take {path}", f"it has more than {max_bytes} bytes")
