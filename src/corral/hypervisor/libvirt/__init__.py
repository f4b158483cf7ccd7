"""The hypervisor driver over libvirt; nothing else imports libvirt."""

from corral.hypervisor.libvirt.driver import LibvirtDriver
from corral.hypervisor.libvirt.networks import LibvirtNetworks
from corral.hypervisor.libvirt.owned import definition_hash

__all__ = ["LibvirtDriver", "LibvirtNetworks", "definition_hash"]
