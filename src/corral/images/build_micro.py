"""The `micro` image: Debian's cloud kernel and an initramfs of busybox and the real guest agent, up in three seconds.

Made for trials and tests: virtio, DHCP, a shell on the serial console, a NoCloud host name, power off on ACPI.
"""

import asyncio
import lzma
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from corral import proc
from corral.errors import CorralError
from corral.images import cpio
from corral.images.apt import Apt, extract, failed
from corral.images.base import Progress
from corral.model.image import ImageFacts

# The kernels to try, first found first taken: Debian's and Ubuntu's for virtual machines.
KERNEL_PACKAGES: Final = ("linux-image-cloud-amd64", "linux-image-virtual")
AGENT_PACKAGE: Final = "qemu-guest-agent"
SHELL_PACKAGE: Final = "busybox-static"

# Modules by what they are for. What a kernel has built in, or does not have, is passed over.
MODULES: Final = (
    *("virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "virtio_balloon", "virtio_rng", "virtio_scsi"),
    *("sd_mod", "sr_mod", "isofs", "button", "evdev", "vmgenid"),
)
# Quiet, and without the tests (of ciphers: half of all instructions) and pauses that cost seconds under emulation.
CMDLINE: Final = "console=ttyS0 quiet panic=1 no_timer_check tsc=reliable mitigations=off nokaslr random.trust_cpu=on cryptomgr.notests=1"
MEMORY_MIN_MIB: Final = 96

_LOADER: Final = "lib64/ld-linux-x86-64.so.2"
_SCRIPTS: Final = {
    "init": ("init", 0o755),
    "inittab": ("etc/inittab", 0o644),
    "rc.once": ("etc/rc.once", 0o755),
    "udhcpc.script": ("etc/udhcpc.script", 0o755),
    "profile": ("etc/profile", 0o644),
    "PWRF": ("etc/acpi/PWRF/00000080", 0o755),
    "shutdown": ("sbin/shutdown", 0o755),
    "cloud-init": ("usr/bin/cloud-init", 0o755),
    "on-fork-net": ("etc/corral/on-fork.d/net", 0o755),
}


async def build_micro(into: Path, work: Path, progress: Progress) -> ImageFacts:
    """Write `kernel` and `initrd` into the directory `into`; `work` is scratch. Returns the facts, without the digest.

    Raises `image-build-failed`, `disk-full`, `command-missing`.
    """
    try:
        return await _build(into, work, progress)
    except CorralError as error:
        raise failed("build image micro", error) from error


async def _build(into: Path, work: Path, progress: Progress) -> ImageFacts:
    for program, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("lz4", "lz4")):
        proc.require(program, package)
    await progress("finding packages", 0.0)
    apt = Apt(work)
    kernel_packages = await _kernel_packages(apt)
    agent_packages = await apt.closure(AGENT_PACKAGE, lambda name: name.startswith("lib"))
    await progress("downloading packages", 0.2)
    wanted = (*kernel_packages, *agent_packages, SHELL_PACKAGE)
    try:
        debs = await apt.download(wanted, work / "debs")
    except CorralError:
        await apt.refresh()  # the machine's lists name versions that the mirror no longer has
        wanted = (*await _kernel_packages(apt), *agent_packages, SHELL_PACKAGE)
        debs = await apt.download(wanted, work / "debs")
    await progress("unpacking packages", 0.5)
    root = work / "root"
    for deb in debs:
        await extract(deb, root)
    if any((root / "lib/modules").rglob("*.ko.zst")):  # Ubuntu's kernels; Python's library reads no zstd yet
        await proc.run(["find", str(root), "-name", "*.ko.zst", "-exec", "zstd", "-dq", "--rm", "{}", "+"])
    await progress("making the initramfs", 0.8)
    libraries = await _needed_libraries(root)
    archive = await asyncio.to_thread(_archive, root, libraries)
    plain = work / "initrd.cpio"
    plain.write_bytes(archive)
    # The kernel reads lz4's legacy frame only; it unpacks fastest of all that the kernel knows.
    await proc.run(["lz4", "-l", "-9", "-q", "-f", str(plain), str(into / "initrd")])
    shutil.copyfile(_one(root / "boot", "vmlinuz-*"), into / "kernel")
    await progress("made", 1.0)
    return ImageFacts(
        digest="",
        os_id="",
        disk_format="",
        has_kernel=True,
        cmdline=CMDLINE,
        uefi=True,
        ssh=False,
        default_user="root",
        memory_min_mib=MEMORY_MIN_MIB,
        description="Three-second guest: busybox, virtio, DHCP and the guest agent on Debian's cloud kernel",
    )


async def _kernel_packages(apt: Apt) -> tuple[str, ...]:
    """The packages that hold the kernel and its modules, by way of the meta package that names the newest."""
    for attempt in range(2):
        for meta in KERNEL_PACKAGES:
            if await apt.knows(meta):
                names = await apt.closure(meta, lambda name: name.startswith(("linux-image-", "linux-modules-")))
                return tuple(name for name in names if name != meta)
        if attempt == 0:
            await apt.refresh()
    raise CorralError("image-build-failed", "find a kernel", f"apt knows none of {', '.join(KERNEL_PACKAGES)}")


def _one(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if not found:
        raise CorralError("image-build-failed", f"find {pattern}", f"the packages brought none into {directory}")
    return found[-1]


# ---- shared libraries ----------------------------------------------------------------------------------------------


def _library_directories(root: Path) -> list[Path]:
    names = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib")
    return [root / name for name in names if (root / name).is_dir()]


async def _needed_libraries(root: Path) -> tuple[Path, ...]:
    """What qemu-ga loads, asked of the packages' own dynamic loader."""
    directories = _library_directories(root)
    loader = next(
        (path for d in directories for path in (d / "ld-linux-x86-64.so.2", root / _LOADER) if path.is_file()), None
    )
    if loader is None:
        raise CorralError("image-build-failed", "find the dynamic loader", "libc6 brought none")
    path = ":".join(str(directory) for directory in directories)
    done = await proc.run([str(loader), "--inhibit-cache", "--library-path", path, "--list", str(_agent(root))])
    return (*(Path(target) for target in _listed(done.stdout.decode(), root)), loader)


def _agent(root: Path) -> Path:
    return next(path for name in ("usr/sbin/qemu-ga", "usr/bin/qemu-ga") if (path := root / name).is_file())


def _listed(text: str, root: Path) -> Iterator[str]:
    """Paths below `root` in the output of `ld.so --list`."""
    for line in text.splitlines():
        _, arrow, target = line.partition(" => ")
        if arrow and target.startswith(str(root)):
            yield target.rpartition(" (")[0]
        elif arrow and "not found" in target:
            raise CorralError("image-build-failed", "collect the guest agent's libraries", line.strip())


# ---- the archive ---------------------------------------------------------------------------------------------------


def _archive(root: Path, libraries: Sequence[Path]) -> bytes:
    busybox = next(path for name in ("bin/busybox", "usr/bin/busybox") if (path := root / name).is_file())
    entries = [
        cpio.character_device("dev/console", 5, 1),
        *(cpio.directory(name) for name in ("proc", "sys", "run", "mnt", "tmp", "root", "etc", "var/lib", "usr/share")),
        cpio.symlink("var/run", "/run"),
        cpio.symlink("etc/mtab", "/proc/mounts"),
        cpio.regular("bin/busybox", busybox.read_bytes(), 0o755),
        cpio.regular("usr/sbin/qemu-ga", _agent(root).read_bytes(), 0o755),
        cpio.regular("etc/passwd", b"root::0:0:root:/root:/bin/sh\n"),
        cpio.regular("etc/group", b"root:x:0:\n"),
        cpio.regular("etc/shells", b"/bin/sh\n"),
        cpio.regular("etc/os-release", b'ID=corral-micro\nNAME="Corral micro"\nPRETTY_NAME="Corral micro guest"\n'),
        *(cpio.symlink(f"sbin/{name}", "shutdown") for name in ("poweroff", "halt")),
        cpio.symlink("sbin/reboot", "/bin/reboot"),
        cpio.symlink("sbin/hwclock", "/bin/busybox"),  # where the agent looks for it
    ]
    for path in libraries:
        place = _LOADER if path.name.startswith("ld-linux") else f"lib/{path.name}"
        entries.append(cpio.regular(place, path.read_bytes(), 0o755))
    scripts = resources.files("corral.images") / "micro"
    for name, (target, mode) in _SCRIPTS.items():
        entries.append(cpio.regular(target, (scripts / name).read_bytes(), mode))
    order: list[str] = []
    for module in _modules(root):
        name = module.name.removesuffix(".xz")
        order.append(name)
        content = module.read_bytes()
        entries.append(
            cpio.regular(f"lib/modules/{name}", lzma.decompress(content) if module.suffix == ".xz" else content)
        )
    entries.append(cpio.regular("lib/modules/order", "".join(f"{name}\n" for name in order).encode()))
    return cpio.build_archive(entries)


def _modules(root: Path) -> tuple[Path, ...]:
    """The modules' files, each after those it needs."""
    tree = next(path for name in ("lib/modules", "usr/lib/modules") for path in sorted((root / name).glob("*")))
    files: dict[str, Path] = {}
    for directory, _, names in os.walk(tree):
        files.update({_module_name(name): Path(directory) / name for name in names if ".ko" in name})
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in files and name not in ordered:
            for needed in _depends(files[name]):
                add(needed)
            ordered[name] = files[name]

    for name in MODULES:
        add(name)
    return tuple(ordered.values())


def _module_name(file_name: str) -> str:
    return file_name.partition(".ko")[0].replace("-", "_")


def _depends(module: Path) -> tuple[str, ...]:
    """The `depends=` of a module's own .modinfo: packages bring no modules.dep, depmod would make it."""
    content = module.read_bytes()
    if module.suffix == ".xz":
        content = lzma.decompress(content)
    start = content.find(b"\0depends=")
    if start < 0:
        return ()
    words = content[start + len(b"\0depends=") :].split(b"\0", 1)[0].decode()
    return tuple(word.replace("-", "_") for word in words.split(",") if word)
