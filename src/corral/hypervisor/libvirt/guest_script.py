"""Small shell scripts of ours in a guest: run to their end by its agent, bounded, told apart by exit codes."""

import asyncio
import base64
import binascii
from typing import Final

from pydantic import Field

from corral.errors import CorralError
from corral.hypervisor.libvirt.guest_agent import Answer, Ask, tell
from corral.names import plain_text

LOOK_S: Final = 0.02
LOOK_MAX_S: Final = 0.5
REASON_MAX_CHARS: Final = 256
SHELL: Final = "/bin/sh"


class _Pid(Answer):
    pid: int = Field(gt=0)


class _Status(Answer):
    exited: bool
    exit_code: int | None = Field(None, alias="exitcode")
    stdout: str = Field("", alias="out-data")
    stderr: str = Field("", alias="err-data")


class ScriptFailedError(Exception):
    """The script said no: its exit code and its last words, made plain."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def run_script(ask: Ask, script: str, *arguments: str, timeout_s: float) -> str:
    """What `script` wrote, its arguments being `$1`, `$2` …. Raises ScriptFailedError, or `guest-agent-*`."""
    arg = ["-c", script, "corral", *arguments]
    started = await tell(ask, "guest-exec", _Pid, {"path": SHELL, "arg": arg, "capture-output": True})
    pause_s = LOOK_S
    try:
        async with asyncio.timeout(timeout_s):
            while not (status := await tell(ask, "guest-exec-status", _Status, {"pid": started.pid})).exited:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LOOK_MAX_S)
    except TimeoutError as error:
        reason = f"a script in the guest did not end within {timeout_s:g} s"
        raise CorralError("guest-agent-timeout", "work in the guest", reason) from error
    if status.exit_code:
        raise ScriptFailedError(status.exit_code, plain_text(_text(status.stderr).strip(), REASON_MAX_CHARS))
    return _text(status.stdout)


def _text(data: str) -> str:
    try:
        return base64.b64decode(data).decode(errors="replace")
    except (binascii.Error, ValueError) as error:
        raise CorralError("guest-agent-error", "guest-exec-status", "the agent's answer is not base64") from error
