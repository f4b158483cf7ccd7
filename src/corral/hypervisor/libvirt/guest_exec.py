"""A command in the guest through its agent: what it writes is told while it runs, bounded, and how it ended exactly.

qemu-ga captures a program's output and hands it out at the end alone. So a shell of the guest's is put around: it lets
the output through bounded files, which the agent can read meanwhile, and then becomes the program itself.
"""

import asyncio
import base64
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from pydantic import Field

from corral.errors import CorralError
from corral.hypervisor.base import ExecResult, OnOutput
from corral.hypervisor.libvirt.guest_agent import Answer, Ask, Handle, Piece, decoded, tell

# At most 20 looks a second while someone waits; fewer when there has been nothing to see for a while.
LOOK_S: Final = 0.05
LOOK_MAX_S: Final = 0.5
# The shell makes the files at once, but a guest may be busy. Later than that, the output comes at the end.
OPEN_PATIENCE_S: Final = 10.0
READ_BYTES: Final = 256 * 1024
# How long a program that nobody wants any more may take to end: what asks it is done by then.
ABANDON_S: Final = 8.0
FILE_BLOCK_BYTES: Final = 512  # the unit of `ulimit -f`
PLACES: Final = ("/run", "/tmp")  # noqa: S108 -- of the guest; the directory has a name that nobody can foresee

# Arguments: a secret name, how many blocks a stream may have, the program and its arguments.
# Whether a file has room is tried in one that nobody reads: `out` may be read from the instant in which it is there.
# It ends as the program itself (exec), so that the agent sees the program's own exit code or signal. Its streams are
# named pipes; `relay` copies each into a file, and beyond the bound into nothing. When both have ended, the agent, which
# captures descriptors 3 and 4 meanwhile, gets what the files hold, and the secret name on 4 if something did not fit.
# 5 and 6 keep the pipes open until each end has been taken up: so no opening waits, and the death of any part is seen.
_STREAMED: Final = """\
t=$1 n=$2; shift 2
for d in "/run/$t" "/tmp/$t" ''; do
 [ -n "$d" ] || { printf %s "$t"; exit 1; }
 mkdir -m 700 "$d" && mkfifo "$d/o" "$d/e" && echo >"$d/room" && : >"$d/out" && : >"$d/err" && break
 rm -rf "$d"
done 2>/dev/null
relay() {
 exec <"$d/$1" 5>&- 6>&-
 (trap '' XFSZ; ulimit -f "$n"; exec cat) >"$d/$2" || { cat >/dev/null; false; }
}
exec 3>&1 4>&2 5<>"$d/o" 6<>"$d/e"
({
 exec </dev/null >/dev/null 2>&1
 relay o out & o=$!
 relay e err & e=$!
 exec 5>&- 6>&-
 wait "$o"; o=$?; wait "$e"; e=$?
 cat "$d/out" >&3; cat "$d/err" >&4
 [ "$o$e" = 00 ] || printf %s "$t" >&4
 exec 3>&- 4>&-
 rm -rf "$d"
} &)
exec >"$d/o" 2>"$d/e" 3>&- 4>&- 5>&- 6>&-
unset t n d
command -v -- "$1" >/dev/null && command -v setsid >/dev/null && exec setsid -- "$@"
exec "$@"
"""
# The program leads a session (setsid), hence a process group: what it has started ends with it.
_STOP: Final = """\
stop() { kill "-$1" "-$p" || kill "-$1" "$p"; }
p=$1; stop TERM && sleep 2 && stop KILL
"""

Stream = Literal["stdout", "stderr"]


class _Pid(Answer):
    pid: int = Field(gt=0)


class _ExecStatus(Answer):
    exited: bool
    exit_code: int | None = Field(None, alias="exitcode")
    signal: int | None = Field(None, ge=1, le=64)
    stdout: str = Field("", alias="out-data")
    stderr: str = Field("", alias="err-data")
    stdout_cut: bool = Field(False, alias="out-truncated")
    stderr_cut: bool = Field(False, alias="err-truncated")


async def execute(
    ask: Ask,
    argv: Sequence[str],
    *,
    stdin: bytes,
    timeout_s: float,
    capture_max_bytes: int,
    on_output: OnOutput | None = None,
) -> ExecResult:
    """Run `argv` in the guest to its end. Raises `guest-agent-timeout` when it is late; it is stopped then, as it is when
    the caller is cancelled. Where the guest has no such shell (Windows) it is run as it is: its output comes at the end,
    and nothing can stop it."""
    return await _Run(ask, tuple(argv), stdin, capture_max_bytes, on_output).to_end(timeout_s)


class _Captured:
    """One stream, up to its bound; what is new is told on."""

    def __init__(self, name: Stream, file: str, limit: int, on_output: OnOutput | None) -> None:
        self.name: Final = name
        self.file: Final = file
        self.handle: int | None = None
        self.content = bytearray()
        self.cut = False
        self._limit = limit
        self._on_output = on_output

    @property
    def full(self) -> bool:
        return len(self.content) >= self._limit

    def add(self, data: bytes) -> None:
        kept = data[: self._limit - len(self.content)]
        self.cut = self.cut or len(kept) < len(data)
        self.content += kept
        if kept and self._on_output is not None:
            self._on_output(self.name, kept)


class _Run:
    """One command on its way."""

    def __init__(
        self, ask: Ask, argv: tuple[str, ...], stdin: bytes, capture_max_bytes: int, on_output: OnOutput | None
    ) -> None:
        self._ask = ask
        self._argv = argv
        self._stdin = stdin
        self._blocks = capture_max_bytes // FILE_BLOCK_BYTES + 1
        self._secret = f"corral-exec.{secrets.token_hex(16)}"
        self._out = _Captured("stdout", "out", capture_max_bytes, on_output)
        self._err = _Captured("stderr", "err", capture_max_bytes, on_output)
        self._wanted = on_output is not None
        self._open_until = 0.0
        self._streamed = True

    async def to_end(self, timeout_s: float) -> ExecResult:
        # A task of its own: whoever is cancelled while the agent starts the program must still learn its number.
        begun = asyncio.create_task(self._begin())
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._result(await asyncio.shield(begun))
        except TimeoutError as error:
            ended = await self._abandon(begun)
            asked, reason = f"run {self._argv[0]} in the guest", f"it did not end within {timeout_s:g} s"
            hint = "it was stopped; --timeout gives it longer" if ended else "it may still run in the guest"
            raise CorralError("guest-agent-timeout", asked, reason, hint) from error
        except asyncio.CancelledError:
            await self._abandon(begun)
            raise
        await self._close()
        return result

    # ---- its life --------------------------------------------------------------------------------------------------

    async def _begin(self) -> int:
        """Start it; its process number in the guest."""
        shell = ("/bin/sh", "-c", _STREAMED, "corral-exec", self._secret, str(self._blocks), *self._argv)
        try:
            return await self._start(shell)
        except CorralError as error:
            if error.code != "guest-agent-error":
                raise
            return await self._begin_plain()  # a refusal means that nothing was started

    async def _begin_plain(self) -> int:
        self._streamed = False
        return await self._start(self._argv)

    async def _start(self, argv: Sequence[str], *, captured: bool = True) -> int:
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": captured}
        if self._stdin and captured:
            arguments["input-data"] = base64.b64encode(self._stdin).decode()
        return (await tell(self._ask, "guest-exec", _Pid, arguments)).pid

    async def _result(self, pid: int) -> ExecResult:
        status = await self._followed(pid)
        stdout, stderr = decoded(status.stdout, "guest-exec-status"), decoded(status.stderr, "guest-exec-status")
        secret = self._secret.encode()
        if stdout == secret and self._streamed:  # no room for the files: the program was not run
            status = await self._followed(await self._begin_plain())
            stdout, stderr = decoded(status.stdout, "guest-exec-status"), decoded(status.stderr, "guest-exec-status")
        whole = stderr.removesuffix(secret)
        # What was told already is the beginning of it.
        self._out.add(stdout[len(self._out.content) :])
        self._err.add(whole[len(self._err.content) :])
        cut = self._out.cut or self._err.cut or len(whole) < len(stderr) or status.stdout_cut or status.stderr_cut
        streams = bytes(self._out.content), bytes(self._err.content)
        return ExecResult(status.exit_code, status.signal, *streams, cut, self._streamed)

    async def _followed(self, pid: int) -> _ExecStatus:
        """Its end; meanwhile what it writes is told."""
        pause_s = LOOK_S
        self._open_until = asyncio.get_running_loop().time() + OPEN_PATIENCE_S
        while not (status := await self._status(pid)).exited:
            await asyncio.sleep(pause_s)
            grew = self._wanted and self._streamed and await self._look()
            pause_s = LOOK_S if grew else min(pause_s * 1.5, LOOK_MAX_S)
        return status

    async def _status(self, pid: int) -> _ExecStatus:
        return await tell(self._ask, "guest-exec-status", _ExecStatus, {"pid": pid})

    async def _abandon(self, begun: "asyncio.Task[int]") -> bool:
        """Stop it; whether its end was seen."""
        with suppress(CorralError, TimeoutError):
            async with asyncio.timeout(ABANDON_S):
                pid = await begun
                await self._close()
                stopper = await self._start(("/bin/sh", "-c", _STOP, "corral-stop", str(pid)), captured=False)
                while not (await self._status(pid)).exited:  # noqa: ASYNC110 -- agents tell nothing unasked
                    await asyncio.sleep(LOOK_MAX_S)
                await self._status(stopper)  # the agent remembers a program until somebody has asked
                return True
        return False

    # ---- its output meanwhile --------------------------------------------------------------------------------------

    async def _look(self) -> bool:
        """Tell what is new in the files; whether there was anything."""
        before = len(self._out.content) + len(self._err.content)
        try:
            for stream in (self._out, self._err):
                if stream.handle is None and not await self._open(stream):
                    self._streamed = asyncio.get_running_loop().time() < self._open_until
                    return False
                await self._read(stream)
        except CorralError as error:
            if error.code != "guest-agent-error":
                raise
            self._streamed = False
        return len(self._out.content) + len(self._err.content) > before

    async def _open(self, stream: _Captured) -> bool:
        for place in PLACES:
            path = f"{place}/{self._secret}/{stream.file}"
            with suppress(CorralError):  # not there yet, or elsewhere, or the agent may not: its own words do not tell
                stream.handle = (await tell(self._ask, "guest-file-open", Handle, {"path": path}, listed=True)).number
                return True
        return False

    async def _read(self, stream: _Captured) -> None:
        more = True
        while more and not stream.full:
            asked = {"handle": stream.handle, "count": READ_BYTES}
            answer = await tell(self._ask, "guest-file-read", Piece, asked)
            content = decoded(answer.content, "guest-file-read")[:READ_BYTES]
            stream.add(content)
            more = len(content) == READ_BYTES

    async def _close(self) -> None:
        for stream in (self._out, self._err):
            if stream.handle is not None:
                with suppress(CorralError):  # the guest may have gone with its program
                    await tell(self._ask, "guest-file-close", Answer, {"handle": stream.handle})
                stream.handle = None
