"""Sessions with a running guest: console, exec, its document, usage. They write no state, only audit."""

import asyncio
import base64
import binascii
import json
import os
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.files import storage_error
from corral.hypervisor.base import Console, ExecResult, OnOutput
from corral.model import limits
from corral.model.answers import UsageReport, VmMemory
from corral.model.requests import ExecRequest
from corral.model.vm import Vm
from corral.services.access import audited, authorize, record
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.talk import asking, begin
from corral.services.usage import UsageMeter, memory_of

CONSOLES: Final = "consoles"


class SessionService:
    """What goes straight to the hypervisor, since it is talk and not state."""

    def __init__(self, context: Context, meter: UsageMeter) -> None:
        self._context = context
        self._meter = meter

    async def exec(
        self, caller: Caller, project: str, name: str, request: ExecRequest, on_output: OnOutput | None = None
    ) -> ExecResult:
        """Run a command in the guest to its end, or to the deadline (`guest-agent-timeout`). It is stopped then, as it is
        when the caller is cancelled; `on_output` hears what it writes meanwhile."""
        vm = await begin(
            self._context, caller, project, name, "vm.exec", "run a command in", f"argv[0] {request.argv[0][:64]!r}"
        )
        stdin = _stdin(request)
        _check_message(request)
        asked = f"run {request.argv[0][:64]!r} in VM {name!r}"
        async with audited(self._context, caller, project, "vm.exec", name):
            with asking(asked):
                return await self._context.hypervisor.guest_exec(
                    vm.uid,
                    request.argv,
                    stdin=stdin,
                    timeout_s=request.timeout_s,
                    capture_max_bytes=limits.EXEC_CAPTURE_MAX_BYTES,
                    on_output=on_output,
                )

    async def open_console(self, caller: Caller, project: str, name: str, *, force: bool) -> Console:
        """The serial console, exclusively; `console-in-use` unless `force` takes it from whoever has it."""
        detail = "taken by force" if force else ""
        vm = await begin(self._context, caller, project, name, "vm.console", "open the console of", detail)
        async with audited(self._context, caller, project, "vm.console", name):
            with asking(f"open the console of VM {name!r}"):
                return await self._context.hypervisor.open_console(vm.uid, force=force)

    async def console_log(self, caller: Caller, project: str, name: str) -> bytes:
        """The end of what the guest wrote to its serial console, since it was made."""
        await authorize(self._context, caller, project, "vm.console-log", name)
        vm = await self._context.objects.require(Vm, project, name)
        await record(self._context, caller, project, "vm.console-log", name, "accepted")
        path = self._context.settings.state_dir / CONSOLES / f"{vm.uid}.log"
        return await asyncio.to_thread(_tail, path, limits.CONSOLE_LOG_MAX_BYTES)

    async def document(self, caller: Caller, project: str, name: str) -> str:
        """The hypervisor's own document of it, for people to read."""
        await authorize(self._context, caller, project, "vm.document", name)
        vm = await self._context.objects.require(Vm, project, name)
        return await self._context.hypervisor.document(vm.uid)

    async def memory(self, caller: Caller, project: str, name: str) -> VmMemory:
        """What a running VM takes of the host's memory, and what of that it shares."""
        await authorize(self._context, caller, project, "vm.usage", name)
        return await memory_of(self._context, await self._context.objects.require(Vm, project, name))

    async def usage(self, caller: Caller, project: str) -> UsageReport:
        """Counters and rates of the running VMs of `project`; of all that the caller may see for an empty one."""
        if project:
            await authorize(self._context, caller, project, "vm.usage")
        return await self._meter.report(caller, project)


def _stdin(request: ExecRequest) -> bytes:
    try:
        stdin = base64.b64decode(request.stdin, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorralError("invalid-argument", "exec", "stdin is not base64", "encode it") from error
    if len(stdin) > limits.EXEC_STDIN_MAX_BYTES:
        raise CorralError(
            "body-too-large",
            "exec",
            f"stdin has {len(stdin)} bytes, more than {limits.EXEC_STDIN_MAX_BYTES}",
            "corral cp FILE VM:/tmp/, and let the command read it there",
        )
    return stdin


def _check_message(request: ExecRequest) -> None:
    """Command and input reach the guest's agent in one message."""
    has_bytes = len(json.dumps(request.argv)) + len(request.stdin)
    if has_bytes > limits.EXEC_MESSAGE_MAX_BYTES:
        raise CorralError(
            "body-too-large",
            "exec",
            f"command and stdin have {has_bytes} bytes together, more than {limits.EXEC_MESSAGE_MAX_BYTES}",
            "corral cp FILE VM:/tmp/, and let the command read it there",
        )


def _tail(path: Path, max_bytes: int) -> bytes:
    """The last bytes of a log and, if it was rotated not long ago, of the part before it (virtlogd names it `.0`)."""
    content = _end_of(path, max_bytes)
    if len(content) < max_bytes:
        content = _end_of(path.with_name(f"{path.name}.0"), max_bytes - len(content)) + content
    return content


def _end_of(path: Path, max_bytes: int) -> bytes:
    try:
        # O_NOFOLLOW: the directory is root's, but a guest's QEMU writes the file.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise storage_error(f"read {path}", error) from error
    with os.fdopen(fd, "rb") as stream:
        size = os.fstat(fd).st_size
        stream.seek(max(0, size - max_bytes))
        return stream.read(max_bytes)
