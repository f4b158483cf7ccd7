"""A deadline inside of a guest whose file systems are frozen: a process there thaws them if nobody else does, whoever has died on
the host. Blocking. A guest without a shell, or whose agent runs nothing, has none: there libvirt and the next start of the daemon
thaw."""

import json
from typing import Final

import libvirt
import libvirt_qemu

from corral.log import logger

THAW_AFTER_S: Final = 60
"""More than freezing and one transaction of QEMU's take."""
ASK_S: Final = 5

PROCESS: Final = "/run/corral-thaw"
# With 0 seconds: whoever waits is ended. `/run` is memory, and so is never frozen.
SCRIPT: Final = f"""
PATH=$PATH:/usr/sbin:/sbin
[ -f {PROCESS} ] && kill "$(cat {PROCESS})" 2>/dev/null
rm -f {PROCESS}
[ "$1" = 0 ] && exit 0
echo $$ >{PROCESS} && sleep "$1" && rm -f {PROCESS} || exit 1
while read -r _ place _; do fsfreeze -u "$(printf %b "$place")" 2>/dev/null; done </proc/mounts
"""

log = logger("hypervisor.libvirt")


def arm(domain: libvirt.virDomain) -> None:
    """Before anything is frozen: afterwards the agent runs nothing. One that was armed before is ended."""
    _run(domain, THAW_AFTER_S)


def disarm(domain: libvirt.virDomain) -> None:
    """It was thawed."""
    _run(domain, 0)


def _run(domain: libvirt.virDomain, seconds: int) -> None:
    arguments = {"path": "/bin/sh", "arg": ["-c", SCRIPT, "corral", str(seconds)]}
    command = json.dumps({"execute": "guest-exec", "arguments": arguments})
    try:
        libvirt_qemu.qemuAgentCommand(domain, command, ASK_S, 0)
    except libvirt.libvirtError as error:
        log.info("a guest has no deadline of its own to thaw by", domain=domain.name(), reason=str(error))
