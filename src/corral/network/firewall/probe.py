"""Whether this host can be filtered, and why not. Looks, and loads the kernel's module; changes nothing else."""

import ctypes
import os
from pathlib import Path
from typing import Final

from corral import proc
from corral.errors import CorralError

BRIDGE_FILTER: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
LIBRARY: Final = "libnftables.so.1"
MODPROBE_S: Final = 10.0


def why_absent() -> str:
    """Empty: nothing is missing."""
    if os.geteuid() != 0:
        return "the daemon does not run as root"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"{LIBRARY} is not installed (package libnftables1)"
    if not BRIDGE_FILTER.exists():
        try:
            proc.call(["modprobe", "br_netfilter"], timeout_s=MODPROBE_S)
        except CorralError:
            return "the kernel has no br_netfilter: what is bridged cannot be filtered with its connections"
    return "" if BRIDGE_FILTER.exists() else "the kernel's br_netfilter does not show in /proc/sys/net/bridge"
