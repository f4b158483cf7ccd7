"""What of a domain's document belongs to the host, not to the VM."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Host:
    """Places of files, and how guests are confined."""

    privileged: bool = True
    """libvirt runs as root and drops privileges for each QEMU; not in session mode."""
    dac_gid: int = 0
    """The group of each QEMU that has a uid of its own."""
    nested_feature: Literal["vmx", "svm"] = "vmx"
    """What the host's processors call virtualization: Intel's or AMD's word."""
    ovmf_code: str = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    ovmf_vars: str = "/usr/share/OVMF/OVMF_VARS_4M.fd"
    ovmf_secure_code: str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
    ovmf_secure_vars: str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
    """With Microsoft's keys enrolled, which sign the boot loaders of every distribution and Windows."""
    nvram_dir: str = "/var/lib/libvirt/qemu/nvram"
    tpm_dir: str = "/var/lib/libvirt/swtpm"

    def nvram(self, uid: str, *, secure: bool) -> str:
        """By uid, so that a rename leaves it alone; another file where there are keys, since the templates differ."""
        return f"{self.nvram_dir}/{uid}_{'SECURE_' if secure else ''}VARS.fd"

    def nvram_template(self, *, secure: bool) -> str:
        return self.ovmf_secure_vars if secure else self.ovmf_vars

    def tpm_state(self, uid: str) -> str:
        return f"{self.tpm_dir}/{uid}"
