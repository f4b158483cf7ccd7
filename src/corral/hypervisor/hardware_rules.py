"""What of a VM's hardware does not go together, and what this host cannot give. Pure."""

from corral.hypervisor.support import HardwareSupport
from corral.model.vm import VmSpec


def check_hardware(asked: str, spec: VmSpec, support: HardwareSupport) -> None:
    """Raises `invalid-hardware` or `unsupported`."""
