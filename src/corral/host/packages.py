"""Checks of installed software: tools that are missing, security updates that wait, a reboot that is due."""

import platform
import re
import shutil
from typing import Final

from corral import proc
from corral.errors import CorralError
from corral.host.machine import Machine, info, ok, warning
from corral.host.machine import error as broken
from corral.model.doctor import Finding

APT_TIMEOUT_S: Final = 20.0
NFT_TIMEOUT_S: Final = 5.0
# What guests' safety hangs on; absent ones are simply not reported by apt-cache.
WATCHED: Final = (
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-utils",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt0",
    "dnsmasq-base",
)
TOOLS: Final = {
    "qemu-img": ("qemu-utils", "disks cannot be made"),
    "dnsmasq": ("dnsmasq-base", "guests get no addresses"),
    "nft": ("nftables", "guests' traffic cannot be filtered"),
    "mmdebstrap": ("mmdebstrap", "images cannot be built"),
    "ssh": ("openssh-client", "corral ssh does not work"),
}


async def check_updates(machine: Machine) -> Finding:
    """Security updates of QEMU, libvirt and the kernel, from what apt already knows; nothing is downloaded."""
    if shutil.which("apt-cache") is None:
        return info("security-updates", "not a Debian system: ask your package manager for updates of QEMU and libvirt")
    kernel = f"linux-image-{platform.release()}"
    metas = [
        name for name in ("linux-image-amd64", "linux-image-cloud-amd64", "linux-image-generic") if _has(machine, name)
    ]
    try:
        done = await proc.run(
            ["apt-cache", "policy", *WATCHED, kernel, *metas], timeout_s=APT_TIMEOUT_S, env={"LC_ALL": "C"}
        )
    except CorralError as failure:
        return info("security-updates", f"apt-cache could not be asked: {failure.reason}", "run apt-get update")
    waiting = pending(done.stdout.decode(errors="replace"))
    if waiting:
        return warning(
            "security-updates",
            f"updates are known for {', '.join(waiting)}",
            "apt-get update && apt-get upgrade; then shut down and start the VMs that `outdated-qemu` names",
        )
    return ok("security-updates", "apt knows of no newer QEMU, libvirt or kernel (as of its last update)")


def _has(machine: Machine, package: str) -> bool:
    return machine.exists(f"/var/lib/dpkg/info/{package}.list")


def pending(policy: str) -> tuple[str, ...]:
    """`name (version)` of the packages in the output of `apt-cache policy` whose candidate is not what is installed.

    A candidate that comes from a security archive is marked so.
    """
    found = []
    for block in re.split(r"^(?=\S+:$)", policy, flags=re.MULTILINE):
        name = block.partition(":\n")[0]
        installed = re.search(r"^  Installed: (\S+)$", block, re.MULTILINE)
        candidate = re.search(r"^  Candidate: (\S+)$", block, re.MULTILINE)
        if not installed or not candidate or "(none)" in (installed[1], candidate[1]) or installed[1] == candidate[1]:
            continue
        sources = re.search(rf"^[ *]+{re.escape(candidate[1])} \d+\n((?:        .*\n?)*)", block, re.MULTILINE)
        security = ", security" if sources and "security" in sources[1] else ""
        found.append(f"{name} ({candidate[1]}{security})")
    return tuple(found)


def check_reboot(machine: Machine) -> Finding:
    """A reboot is due when a package asked for one, or when a newer kernel of the running flavour is installed."""
    if machine.exists("/run/reboot-required"):
        return warning("reboot", "an installed update asks for a reboot", "reboot; VMs with autostart come up again")
    running = platform.release()
    kernels = [name.removeprefix("vmlinuz-") for name in machine.names("/boot") if name.startswith("vmlinuz-")]
    flavour = re.sub(r"^[\d.+~-]+", "", running)
    same = [name for name in kernels if re.sub(r"^[\d.+~-]+", "", name) == flavour]
    newest = max(same, key=_version, default=running)
    if running in same and _version(newest) > _version(running):
        return warning("reboot", f"kernel {newest} is installed, {running} runs", "reboot to use it")
    return ok("reboot", f"no reboot is due (kernel {running})")


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release))


def check_tools() -> Finding:
    missing = {tool: TOOLS[tool] for tool in TOOLS if shutil.which(tool) is None}
    if not missing:
        return ok("tools", f"installed: {', '.join(TOOLS)}")
    lack = "; ".join(f"{tool} is missing: {effect}" for tool, (_, effect) in missing.items())
    packages = " ".join(sorted({package for package, _ in missing.values()}))
    return broken("tools", lack, f"apt-get install {packages}")


async def check_nftables() -> Finding:
    """By trying: the kernel answers nft, or it does not."""
    try:
        await proc.run(["nft", "list", "tables"], timeout_s=NFT_TIMEOUT_S)
    except CorralError as failure:
        return warning("nftables", f"nft cannot be used: {failure.reason}", "install nftables; run the daemon as root")
    return ok("nftables", "the kernel answers nft")
