"""Checks of what the running kernel offers, how it confines guests, and whether its clock is right."""

import ctypes
import platform
from collections.abc import Iterator
from typing import Final

from corral.host.machine import Machine, info, ok, warning
from corral.host.machine import error as broken
from corral.model.doctor import Finding
from corral.model.network import Network

CONTROLLERS: Final = ("cpu", "memory")
# adjtimex(2): STA_UNSYNC, and where `status` lies in struct timex on 64-bit Linux.
STA_UNSYNC: Final = 0x0040
TIMEX_BYTES: Final = 256
TIMEX_STATUS_OFFSET: Final = 40


def check_kernel(machine: Machine, networks: tuple[Network, ...]) -> Iterator[Finding]:
    """Everything about the running kernel."""
    yield check_cgroups(machine)
    yield check_tun(machine)
    yield check_vhost(machine)
    yield check_bridge_netfilter(machine)
    yield check_forwarding(machine, networks)
    yield check_lsm(machine)


def check_cgroups(machine: Machine) -> Finding:
    unified = machine.text("/sys/fs/cgroup/cgroup.controllers")
    if unified is not None:
        missing = [name for name in CONTROLLERS if name not in unified.split()]
        version = "v2"
    else:
        rows = [line.split() for line in (machine.text("/proc/cgroups") or "").splitlines() if line[:1] != "#"]
        present = {row[0] for row in rows if len(row) == 4 and row[3] == "1"}
        missing = [name for name in CONTROLLERS if name not in present]
        version = "v1"
    if missing:
        return warning(
            "cgroups",
            f"control groups ({version}) lack: {', '.join(missing)}; CPU shares and memory figures will not work",
            "boot with cgroup_enable=memory, or enable the controllers of the parent group",
        )
    return ok("cgroups", f"control groups {version} with {', '.join(CONTROLLERS)}")


def check_tun(machine: Machine) -> Finding:
    if machine.usable("/dev/net/tun"):
        return ok("tun", "/dev/net/tun can be opened")
    return broken("tun", "/dev/net/tun cannot be opened: no guest gets a network card", "modprobe tun")


def check_vhost(machine: Machine) -> Finding:
    if machine.exists("/dev/vhost-net"):
        return ok("vhost-net", "/dev/vhost-net is there")
    return info(
        "vhost-net", "no /dev/vhost-net: guests' packets pass through QEMU, which is slower", "modprobe vhost_net"
    )


def check_bridge_netfilter(machine: Machine) -> Finding:
    value = machine.text("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if value is not None:
        return ok("bridge-netfilter", f"br_netfilter is there (bridge-nf-call-iptables={value})")
    modules = machine.text(f"/lib/modules/{platform.release()}/modules.dep") or ""
    if "/br_netfilter.ko" in modules:
        return info("bridge-netfilter", "br_netfilter is not loaded; it is loaded when a firewall needs it")
    return warning(
        "bridge-netfilter",
        "the kernel has no br_netfilter: traffic between guests of one bridge cannot be filtered",
        "install the distribution's full kernel image",
    )


def check_forwarding(machine: Machine, networks: tuple[Network, ...]) -> Finding:
    value = machine.text("/proc/sys/net/ipv4/ip_forward")
    active = [network.name for network in networks if network.status.active]
    if value == "1":
        return ok("ip-forwarding", "IPv4 forwarding is on")
    if active:
        return broken(
            "ip-forwarding",
            f"IPv4 forwarding is off, though networks are up ({', '.join(active)}): guests reach nothing outside",
            "sysctl net.ipv4.ip_forward=1, and find out what switched it off",
        )
    return info("ip-forwarding", "IPv4 forwarding is off; libvirt switches it on with the first network")


def check_lsm(machine: Machine) -> Finding:
    if machine.text("/sys/fs/selinux/enforce") == "1":
        return ok("mandatory-access-control", "SELinux enforces: libvirt labels each guest (sVirt)")
    if machine.text("/sys/module/apparmor/parameters/enabled") == "Y":
        return ok("mandatory-access-control", "AppArmor is on: libvirt gives each guest a profile")
    return info(
        "mandatory-access-control",
        "neither AppArmor nor SELinux is on; guests are confined by their own uids and QEMU's seccomp filter alone",
        "boot with apparmor=1 security=apparmor and install apparmor, apparmor-utils",
    )


def check_clock() -> Finding:
    """The kernel's own word on whether something disciplines its clock."""
    timex = ctypes.create_string_buffer(TIMEX_BYTES)
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        return info("time-sync", "the kernel does not tell whether its clock is synchronized")
    status = int.from_bytes(timex.raw[TIMEX_STATUS_OFFSET : TIMEX_STATUS_OFFSET + 4], "little")
    if status & STA_UNSYNC:
        return warning("time-sync", "the clock is not synchronized", "install systemd-timesyncd or chrony")
    return ok("time-sync", "the clock is synchronized")
