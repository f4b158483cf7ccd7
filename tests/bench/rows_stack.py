"""The row of stacks on real libvirt: ten micro VMs by one `corral apply`, and by ten bare `virsh create` in a shell's loop."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import libvirt
from stage import CORRAL, Daemon, Row, median, process_s, say

COUNT = 10
ROUNDS = 3
SETTLE_S = 2.0
MEMORY_MIB = 128
LIMIT = 1.2
# Quietly, and each document once: what a person would type instead.
LOOP = 'for file in "$1"/*.xml; do virsh -q -c "$2" create "$file" >/dev/null || exit 1; done'


def apply_row(
    one: Daemon, image: str, prefix: str, uri: str, bare_copy: Callable[[str, str], str], count: int = COUNT
) -> Row:
    """Whole processes, interleaved: `corral apply` makes the disks, too; virsh gets documents of the same machines, whose
    disks are there."""
    names = [f"{prefix}-{number}" for number in range(1, count + 1)]
    ours, theirs = [], []
    say(f"{ROUNDS} times corral apply of {count} VMs, virsh create of {count} domains")
    with tempfile.TemporaryDirectory(prefix="corral-bench-stack-") as name:
        directory = Path(name)
        stack = directory / "stack.yaml"
        stack.write_text(
            f"stack: {prefix}\nvms: {{{prefix}: {{count: {count}, image: {image}, memory: {MEMORY_MIB}}}}}\n"
        )
        connection = libvirt.open(uri)
        try:
            for _ in range(ROUNDS):
                ours.append(process_s([CORRAL, "apply", "-f", str(stack)], one.environment))
                for vm in names:
                    document = connection.lookupByName(vm).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
                    (directory / f"{vm}.xml").write_text(bare_copy(document, vm))
                one.run("destroy", *names)
                time.sleep(SETTLE_S)
                try:
                    theirs.append(process_s(["sh", "-c", LOOP, "sh", str(directory), uri], one.environment))
                finally:
                    _stop(connection, [f"{vm}-bare" for vm in names])
                one.run("down", prefix, "--yes")
                time.sleep(SETTLE_S)
        finally:
            connection.close()
    how = f"whole processes, interleaved, {ROUNDS} times: {median(ours):.2f} s against {median(theirs):.2f} s"
    promise = f"`corral apply` of {count} micro VMs against {count} bare `virsh create` in a shell's loop"
    return Row(promise, LIMIT, median(ours) / median(theirs), "", how)


def _stop(connection: libvirt.virConnect, names: Sequence[str]) -> None:
    """Domains that `virsh create` made are gone when they stop."""
    for name in names:
        with contextlib.suppress(libvirt.libvirtError):
            connection.lookupByName(name).destroy()
