"""Whether this host can give a VM the hardware that it asks for; asked before anything is written."""

import posixpath
from dataclasses import replace

from corral.errors import CorralError, ErrorKind
from corral.hypervisor.base import Accelerator
from corral.hypervisor.hardware_rules import check_hardware
from corral.hypervisor.support import HardwareSupport
from corral.model.host import Host
from corral.model.vm import VmSpec
from corral.services.context import Context


async def read_support(context: Context) -> HardwareSupport:
    """What the hypervisor can do here, under the accelerator that was found to work."""
    host = await context.objects.get(Host, context.host_uid)
    accelerator = host.status.accelerator if host is not None else ""
    found: Accelerator = "kvm" if accelerator == "kvm" else "tcg"
    roots = tuple(posixpath.normpath(root) for root in context.settings.share_roots.split(":") if root)
    try:
        return replace(await context.hypervisor.hardware_support(found), share_roots=roots)
    except CorralError as error:
        if error.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT):
            raise
        # What contradicts itself, or is not allowed, is refused all the same.
        return HardwareSupport(accelerator=found, share_roots=roots)


async def check_spec(context: Context, spec: VmSpec, asked: str) -> None:
    """Raises `invalid-hardware` where the wish contradicts itself, `unsupported` where this host cannot fulfil it."""
    check_hardware(asked, spec, await read_support(context))
