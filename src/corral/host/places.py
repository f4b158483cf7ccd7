"""Checks of the places that Corral uses: its state directory, disk space, and subnets against the host's routes."""

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from corral.files import free_bytes
from corral.host.machine import Machine, ok, warning
from corral.host.machine import error as broken
from corral.model.doctor import Finding
from corral.model.network import Network
from corral.names import GIB, format_bytes

DISK_WARN_BYTES: Final = 5 * GIB
DISK_ERROR_BYTES: Final = GIB // 2
OTHERS_WRITE: Final = 0o002
OTHERS_PASS: Final = 0o001


def check_places(machine: Machine, state_dir: Path, networks: tuple[Network, ...]) -> Iterator[Finding]:
    """Everything about directories and subnets."""
    yield check_state_dir(machine, state_dir)
    yield check_way_to_disks(machine, state_dir)
    yield check_space(machine, state_dir)
    yield check_subnets(machine, networks)


def check_state_dir(machine: Machine, state_dir: Path) -> Finding:
    found = machine.owner_and_mode(str(state_dir))
    if found is None:
        return broken("state-directory", f"{state_dir} is not there", "start the daemon: it makes it")
    owner, _, mode = found
    if mode & OTHERS_WRITE:
        return broken("state-directory", f"everyone may write {state_dir} ({mode:04o})", f"chmod o-w {state_dir}")
    if owner not in (0, machine.uid):
        return broken("state-directory", f"{state_dir} belongs to uid {owner}", f"chown {machine.uid} {state_dir}")
    if not os.access(machine.path(str(state_dir)), os.W_OK):
        return broken("state-directory", f"{state_dir} cannot be written", "remount it read-write, or check its owner")
    return ok("state-directory", f"{state_dir} belongs to uid {owner}, mode {mode:04o}")


def check_way_to_disks(machine: Machine, state_dir: Path) -> Finding:
    """Each QEMU runs under a uid of its own: it must be able to walk down to its disk. Sessions run as their user."""
    if machine.uid != 0:
        return ok("disk-path", "guests run as the daemon's own user")
    for place in [state_dir, *state_dir.parents]:
        found = machine.owner_and_mode(str(place))
        if found is not None and not found[2] & OTHERS_PASS:
            return broken(
                "disk-path",
                f"{place} ({found[2]:04o}) does not let guests' uids through to their disks",
                f"chmod o+x {place}, or choose another --state-dir",
            )
    return ok("disk-path", "guests' uids can reach their disks")


def check_space(machine: Machine, state_dir: Path) -> Finding:
    place = machine.path(str(state_dir))
    while not place.exists():
        place = place.parent
    free = free_bytes(place)
    text = f"{format_bytes(free)} are free for disks and images in {state_dir}"
    if free < DISK_ERROR_BYTES:
        return broken("disk-space", text, "delete images or VMs you no longer need, or add a disk")
    if free < DISK_WARN_BYTES:
        return warning("disk-space", text, "thin disks may run full: delete images or VMs, or add a disk")
    return ok("disk-space", text)


def routes(table: str) -> tuple[tuple[str, ipaddress.IPv4Network], ...]:
    """Interface and destination of each line of /proc/net/route but the default; addresses are little-endian hex."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        address, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            network = ipaddress.IPv4Network((address, mask.bit_count()), strict=False)
            found.append((fields[0], network))
    return tuple(found)


def check_subnets(machine: Machine, networks: tuple[Network, ...]) -> Finding:
    """No network of ours may overlap what the host reaches elsewhere, nor another of ours."""
    known = list(routes(machine.text("/proc/net/route") or ""))
    for network in (network for network in networks if network.spec.hosted):
        ours = ipaddress.IPv4Network(network.spec.subnet, strict=False)
        for interface, other in known:
            if interface != network.spec.bridge and ours.overlaps(other):
                return broken(
                    "subnets",
                    f"network {network.name} ({ours}) overlaps {other}, which the host reaches through {interface}",
                    "set `subnet` in /etc/corral/corral.toml to a free one; guests get new addresses",
                )
        known.append((network.spec.bridge, ours))
    return ok("subnets", "no network of ours overlaps another route" if networks else "there is no network yet")
