"""Which accelerator runs guest code, found by running some: a device node and libvirt's word are no proof."""

import asyncio
import os
import stat
import tempfile
from pathlib import Path
from typing import Final, Literal

from corral import proc
from corral.errors import CorralError
from corral.hypervisor.libvirt import boot_sector
from corral.model.host import AcceleratorFinding

QEMU: Final = "qemu-system-x86_64"
KVM_DEVICE: Final = Path("/dev/kvm")
# Firmware and loop take 0.5 s under emulation and 0.2 s on hardware; a KVM that is slower than this is of no use.
KVM_BOUND_S: Final = 5.0
# Emulation always works; it gets longer, because the machine may be busy.
TCG_BOUND_S: Final = 20.0


async def probe_accelerators() -> tuple[AcceleratorFinding, ...]:
    """Run the boot sector under TCG and KVM, one after the other; the best usable one first."""
    tcg = await _probe("tcg", TCG_BOUND_S)
    missing = _kvm_missing()
    kvm = AcceleratorFinding(name="kvm", usable=False, reason=missing) if missing else await _probe("kvm", KVM_BOUND_S)
    if kvm.usable and tcg.usable and kvm.instructions_per_s < tcg.instructions_per_s:
        reason = f"{kvm.reason}: slower than emulation"
        kvm = kvm.model_copy(update={"usable": False, "reason": reason})
    return (kvm, tcg)


def _kvm_missing() -> str:
    """Why KVM need not be tried, or nothing."""
    try:
        mode = KVM_DEVICE.stat().st_mode
    except OSError as error:
        return f"{KVM_DEVICE}: {error.strerror}"
    if not stat.S_ISCHR(mode):
        return f"{KVM_DEVICE} is not a device"
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return f"{KVM_DEVICE} may not be opened by this user"
    return ""


async def _probe(name: Literal["kvm", "tcg"], bound_s: float) -> AcceleratorFinding:
    with tempfile.NamedTemporaryFile(prefix="corral-probe-", suffix=".img") as image:
        image.write(boot_sector.build_boot_image())
        image.flush()
        return await _run(name, image.name, bound_s)


def _command(name: str, image: str) -> tuple[str, ...]:
    debug = f"isa-debugcon,iobase={boot_sector.DEBUG_PORT:#x},chardev=debug"
    leave = f"isa-debug-exit,iobase={boot_sector.EXIT_PORT:#x},iosize=4"
    return (
        QEMU,
        *("-accel", name, "-machine", "q35", "-m", "32"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-drive", f"file={image},format=raw,snapshot=on"),
        *("-chardev", "stdio,id=debug,signal=off", "-device", debug, "-device", leave),
    )


async def _run(name: Literal["kvm", "tcg"], image: str, bound_s: float) -> AcceleratorFinding:
    """Time the loop between the guest's two lines. QEMU's own status 33 says that the guest reached its end."""
    clock = asyncio.get_running_loop().time
    started = ended = 0.0
    words = ""
    try:
        async for line in proc.lines(_command(name, image), timeout_s=bound_s):
            if line == boot_sector.STARTED:
                started = clock()
            elif line == boot_sector.ENDED:
                ended = clock()
            else:
                words = line
    except CorralError as error:
        if error.code == "command-timeout":
            where = "its start-up code" if started == 0.0 else "a loop of 300 million instructions"
            reason = f"the guest did not get through {where} within {bound_s:g} s"
            return AcceleratorFinding(name=name, usable=False, reason=reason)
        if error.context.get("status") != boot_sector.EXIT_STATUS:
            return AcceleratorFinding(name=name, usable=False, reason=words or error.reason)
    if not started or not ended:
        return AcceleratorFinding(name=name, usable=False, reason=words or "QEMU ended before the guest did")
    seconds = max(ended - started, 1e-4)
    count = boot_sector.LOOP_TURNS * boot_sector.INSTRUCTIONS_PER_TURN
    reason = f"ran {count // 1_000_000} million instructions in {seconds:.2f} s"
    return AcceleratorFinding(name=name, usable=True, instructions_per_s=count / seconds, reason=reason)
