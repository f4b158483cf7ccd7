"""QEMU's own monitor, through libvirt: for what libvirt has no call."""

import json
import time
from collections.abc import Callable
from typing import Any, Final

import libvirt
import libvirt_qemu

from corral.errors import CorralError

LOOK_S: Final = 0.0005
LOOK_MAX_S: Final = 0.05


def ask(domain: libvirt.virDomain, command: str, **arguments: Any) -> Any:
    """The answer. Raises `hypervisor-error` with QEMU's words."""
    request = json.dumps({"execute": command, "arguments": arguments})
    return _answer(command, libvirt_qemu.qemuMonitorCommand(domain, request, 0))


def hand_over(domain: libvirt.virDomain, name: str, descriptor: int) -> None:
    """An open file under a name, for one use: `fd:NAME`."""
    request = json.dumps({"execute": "getfd", "arguments": {"fdname": name}})
    text, _files = libvirt_qemu.qemuMonitorCommandWithFiles(domain, request, [descriptor], 0)
    _answer("getfd", text)


def _answer(command: str, text: str) -> Any:
    found = json.loads(text)
    if "error" in found:
        reason = str(found["error"].get("desc", "it gave no reason"))
        raise CorralError("hypervisor-error", f"ask QEMU to {command}", reason)
    return found["return"]


def wait_until(done: Callable[[], bool], timeout_s: float, asked: str, reason: str) -> None:
    """Look ever more rarely. Raises `hypervisor-timeout`."""
    deadline, pause_s = time.monotonic() + timeout_s, LOOK_S
    while not done():
        if time.monotonic() >= deadline:
            raise CorralError("hypervisor-timeout", asked, reason)
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LOOK_MAX_S)


def ignore_shared_memory(domain: libvirt.virDomain, *, on: bool) -> None:
    """QEMU's stream without (or with) the guest's memory. It must be off again before a guest that was loaded runs: a
    later save would lack the memory, and could not be restored."""
    capability = {"capability": "x-ignore-shared", "state": on}
    ask(domain, "migrate-set-capabilities", capabilities=[capability])
