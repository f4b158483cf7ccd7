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
            _leave_others_bridges()
        except (CorralError, OSError):
            return "the kernel has no br_netfilter: what is bridged cannot be filtered with its connections"
    return "" if BRIDGE_FILTER.exists() else "the kernel's br_netfilter does not show in /proc/sys/net/bridge"


def _leave_others_bridges() -> None:
    """Loaded, it hands what any bridge carries to the host's packet filter. It is said for each of ours by itself, and whoever
    had no such thing until now does not get it from us. Raises OSError."""
    for switch in BRIDGE_FILTER.parent.glob("bridge-nf-call-*"):
        switch.write_text("0\n")
