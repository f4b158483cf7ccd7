"""The main job: an image, a virtual machine made from it, and the wait until one can log in."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from installer.context import Context
from installer.shell import Refused
from installer.steplist import plain

Say = Callable[[str], None]
IMAGE_TIMEOUT_S = 1800.0
VM_TIMEOUT_S = 300.0
SSH_TIMEOUT_S = 600.0
POLL_S = 0.5
OWN_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub", "corral_ed25519.pub")


def ensure_image(context: Context, say: Say) -> str:
    """The image is ready; built, or followed where an earlier run began it."""
    found = _named(context.items("image", "list"), context.image)
    state = found["status"]["state"] if found else ""
    if found and state == "ready":
        return "ready" + _age(context, (found["status"].get("facts") or {}).get("recipe", ""))
    operation = _unfinished(context, "image", context.image) if state in ("pending", "preparing") else ""
    if not operation:
        operation = _begin(context, f"build image {context.image}", "image", "build", context.image)
    _follow(context, operation, f"build image {context.image}", say, IMAGE_TIMEOUT_S)
    return "built"


def _age(context: Context, recipe: str) -> str:
    """A word on an image that this checkout would build otherwise. VMs stand on it, so that it is not replaced unasked."""
    python = str(context.venv / "bin/python")
    now = context.shell.ask([python, "-m", "corral.images.recipes", context.image]).output.strip()
    if not now or now == recipe:
        return ""
    return f"; built by an older recipe: `corral image delete {context.image}` once no VM needs it, then make up"


def ensure_vm(context: Context, say: Say) -> str:
    """The VM is there and runs."""
    vm = context.document("info", context.vm)
    if vm is None:
        what = f"create {context.vm}"
        operation = _begin(context, what, "create", "--name", context.vm, "--image", context.image,
                           "--memory", "1024", "--vcpus", "2", *_caller_key(context, say))  # fmt: skip
        _follow(context, operation, what, say, VM_TIMEOUT_S)
        return "created"
    for name in [context.vm, *context.recall().get("stopped", [])]:
        _start(context, name, say)
    context.note(stopped=[])
    state = vm["status"]["state"]
    return "runs" if state == "running" else f"started (it was {state})"


def _start(context: Context, name: str, say: Say) -> None:
    vm = context.document("info", name)
    if not isinstance(vm, dict) or (vm["status"]["state"] == "running" and vm["spec"]["power"] == "on"):
        return
    operation = _unfinished(context, "vm", name)
    if not operation:
        verb = "resume" if vm["status"]["state"] == "paused" else "start"
        operation = _begin(context, f"{verb} {name}", verb, name)
    _follow(context, operation, f"start {name}", say, VM_TIMEOUT_S)


def wait_for_login(context: Context, say: Say) -> str:
    """sshd answers in the guest, or the agent of a guest without one; meanwhile the last line of its console shows how
    far it is."""
    by = "ssh" if has_ssh(context) else "agent"
    deadline = time.monotonic() + SSH_TIMEOUT_S
    patience_s = 3
    while True:
        if context.client("wait", context.vm, "--for", by, "--timeout", f"{patience_s}s", timeout_s=patience_s + 30).ok:
            if by == "agent":
                return "its console is ready"
            vm = context.document("info", context.vm) or {}
            addresses = vm.get("status", {}).get("addresses") or [nic["address"] for nic in vm["spec"]["nics"]]
            return f"ssh answers at {addresses[0]}" if addresses else "ssh answers"
        lines = [
            plain(line) for line in context.client("console", context.vm, "--log").output.splitlines() if line.strip()
        ]
        say(lines[-1].strip() if lines else "waiting for the first words of its console")
        # Each end of a wait hangs up on the guest's sshd: where that takes seconds to answer, it must be let finish.
        patience_s = min(patience_s + 1, 30)
        if time.monotonic() > deadline:
            last = "\n".join(lines[-10:])
            raise Refused(
                f"log in to {context.vm}",
                f"{by} does not answer within {SSH_TIMEOUT_S:g} s; its console says:\n{last}",
                f"look at it: corral console {context.vm}",
            )


def has_ssh(context: Context) -> bool:
    """Whether an SSH server runs in what the VM was made from; where nothing is known, as is usual, one does."""
    vm = context.document("info", context.vm) or {}
    found = _named(context.items("image", "list"), vm.get("spec", {}).get("image") or context.image)
    return bool(((found or {}).get("status", {}).get("facts") or {}).get("ssh", True))


def _caller_key(context: Context, say: Say) -> list[str]:
    """Under sudo the command line would take root's key; the caller's own is named then."""
    if os.geteuid() == 0:
        return []
    directory = Path.home() / ".ssh"
    own = next((directory / name for name in OWN_KEYS if (directory / name).exists()), None)
    if own is None:
        own = directory / "corral_ed25519.pub"
        directory.mkdir(mode=0o700, exist_ok=True)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "corral", "-f", str(own.with_suffix(""))]
        context.shell.must("make an SSH key", argv, say)
    return ["--ssh-key", str(own)]


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((item for item in items if item.get("name") == name), None)


def _unfinished(context: Context, kind: str, name: str) -> str:
    """The uid of an operation on this target that goes on, or empty."""
    for operation in context.items("operation", "list"):
        spec, status = operation.get("spec", {}), operation.get("status", {})
        if (spec.get("target_kind"), spec.get("target_name")) == (kind, name) and status.get("state") in (
            "accepted",
            "running",
        ):
            return str(operation["uid"])
    return ""


def _begin(context: Context, what: str, *arguments: str) -> str:
    """Ask for a change without waiting for it; the operation's uid."""
    result = context.client(*arguments, "--async", "-o", "json")
    if not result.ok:
        raise Refused(what, result.tail)
    uid = operation_uid(result.output)
    if not uid:
        raise Refused(what, f"the daemon answered with no operation:\n{result.tail}")
    return uid


def operation_uid(text: str) -> str:
    """The uid of the operation in a command's JSON: the document itself, or its field `operation`."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return ""
    if isinstance(found, list):
        found = found[0] if found else {}
    found = found.get("operation", found)
    return str(found.get("uid", "")) if isinstance(found, dict) else ""


def _follow(context: Context, uid: str, what: str, say: Say, timeout_s: float) -> None:
    """Show how an operation goes until it has ended."""
    deadline = time.monotonic() + timeout_s
    while True:
        operation = context.document("operation", "show", uid)
        if isinstance(operation, dict):
            status = operation["status"]
            if status["state"] == "succeeded":
                return
            if status["state"] not in ("accepted", "running"):
                error = status.get("error") or {}
                raise Refused(
                    what, error.get("reason") or f"the operation was {status['state']}", error.get("hint", "")
                )
            say(shown(status))
        if time.monotonic() > deadline:
            raise Refused(what, f"not done within {timeout_s:g} s", f"corral operation show {uid}")
        time.sleep(POLL_S)


def shown(status: dict[str, Any]) -> str:
    """An operation's progress in one line: a bar where it is known."""
    progress = status.get("progress")
    bar = ""
    if progress is not None:
        full = round(progress * 20)
        bar = f"[{'#' * full}{'.' * (20 - full)}] {progress:4.0%} "
    detail = f" ({status['detail']})" if status.get("detail") else ""
    return f"{bar}{status.get('phase') or status['state']}{detail}"
