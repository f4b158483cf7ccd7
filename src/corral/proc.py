"""The only place that starts processes: bounded in time and output, never through a shell."""

import asyncio
import contextlib
import os
import resource
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from corral.errors import CorralError

OUTPUT_MAX_BYTES: Final = 1 * 2**20
DEFAULT_TIMEOUT_S: Final = 60.0
KILL_GRACE_S: Final = 5.0
SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True)
class Completed:
    """What a finished command left."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Limits:
    """Bounds for a parser of hostile input; None leaves the process's own limit."""

    memory_bytes: int | None = None
    cpu_s: int | None = None
    file_bytes: int | None = None
    """How long a file it may write; beyond that its writes fail, or it is killed (SIGXFSZ)."""

    def apply(self) -> None:
        """Set the limits in the child, between fork and exec."""
        if self.memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (self.memory_bytes, self.memory_bytes))
        if self.cpu_s is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_s, self.cpu_s))
        if self.file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes, self.file_bytes))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def shown(argv: Sequence[str]) -> str:
    """The command, ready to paste."""
    return shlex.join(argv)


def complete_search_path() -> None:
    """Find the administrator's tools too: the PATH of an ordinary user, and of root after a plain `su`, lacks them."""
    known = os.environ.get("PATH", os.defpath).split(":")
    os.environ["PATH"] = ":".join([*known, *(place for place in SBIN if place not in known)])


def require(program: str, package: str = "") -> str:
    """The path of `program`; `command-missing` with the package that brings it otherwise."""
    path = shutil.which(program)
    if path is None:
        hint = f"apt-get install {package}" if package else f"install {program}"
        raise CorralError("command-missing", f"run {program}", "it is not installed", hint)
    return path


def tied(argv: Sequence[str]) -> list[str]:
    """The command, to be killed when this process dies: what it holds locked is wanted by the next one."""
    program = shutil.which("setpriv")  # of util-linux
    return [program, "--pdeathsig", "KILL", "--", *argv] if program else list(argv)


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    stdin: bytes | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
    limits: Limits | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> Completed:
    """Run `argv` to its end. Raises `command-failed` (unless `check` is off), `command-timeout`, `command-missing`.

    Output beyond `OUTPUT_MAX_BYTES` a stream is an error: nothing that we call has that much to say. A child that is
    late, or whose caller is cancelled, is killed with its whole process group. `on_output` hears what is written to
    standard output as it comes.
    """
    process = await _start(argv, stdin is not None, env, cwd, pass_fds, limits)
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await _communicate(process, stdin, on_output)
    except TimeoutError as error:
        raise CorralError("command-timeout", shown(argv), f"did not end within {timeout_s:g} s") from error
    finally:
        await _end(process)
    done = Completed(tuple(argv), process.returncode or 0, stdout, stderr)
    if check and done.returncode != 0:
        raise failure(done)
    return done


def failure(done: Completed) -> CorralError:
    """The coded error of a command that ended badly; its last words are the reason."""
    words = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
    reason = words[-2000:] or f"ended with status {done.returncode}"
    return CorralError("command-failed", shown(done.argv), reason, context={"status": done.returncode})


async def lines(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[str]:
    """Yield the lines that `argv` writes (both streams, in order) as they come; raise `command-failed` at a bad end."""
    process = await _start(argv, False, env, cwd, (), limits, merge=True)
    assert process.stdout is not None
    tail: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip("\r\n")
                tail = [*tail[-19:], line]
                yield line
            await process.wait()
    except TimeoutError as error:
        raise CorralError("command-timeout", shown(argv), f"did not end within {timeout_s:g} s") from error
    finally:
        await _end(process)
    if process.returncode:
        raise failure(Completed(tuple(argv), process.returncode, "\n".join(tail).encode(), b""))


async def stream(argv: Sequence[str], *, limits: Limits | None = None) -> AsyncGenerator[bytes, None]:
    """Yield what `argv` writes to standard output, as it comes, to its end. Whoever closes it early kills the command.

    Raises `command-failed` at a bad end. Nothing bounds it but its reader: what is not taken waits in the pipe."""
    process = await _start(argv, False, None, None, (), limits)
    assert process.stdout is not None
    assert process.stderr is not None
    said = asyncio.ensure_future(_last_words(process.stderr))
    try:
        while chunk := await process.stdout.read(65536):
            yield chunk
        words = await said
        await process.wait()
    finally:
        said.cancel()
        await asyncio.wait([said])
        await _end(process)
    if process.returncode:
        raise failure(Completed(tuple(argv), process.returncode, b"", words))


async def _last_words(stream: asyncio.StreamReader) -> bytes:
    words = b""
    while chunk := await stream.read(4096):
        words = (words + chunk)[-4096:]
    return words


async def _start(
    argv: Sequence[str],
    with_stdin: bool,
    env: Mapping[str, str] | None,
    cwd: str | None,
    pass_fds: Sequence[int],
    limits: Limits | None,
    merge: bool = False,
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if with_stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if merge else asyncio.subprocess.PIPE,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            preexec_fn=limits.apply if limits else None,
        )
    except FileNotFoundError as error:
        raise CorralError("command-missing", f"run {argv[0]}", "it is not installed", f"install {argv[0]}") from error


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None, on_output: Callable[[bytes], None] | None
) -> tuple[bytes, bytes]:
    async def feed() -> None:
        if process.stdin is not None and stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(stdin)
                await process.stdin.drain()
            process.stdin.close()

    async def drain(stream: asyncio.StreamReader | None) -> bytes:
        assert stream is not None
        content = b""
        while chunk := await stream.read(65536):
            content += chunk
            if on_output is not None and stream is process.stdout:
                on_output(chunk)
            if len(content) > OUTPUT_MAX_BYTES:
                raise CorralError("command-failed", "run a command", f"it wrote more than {OUTPUT_MAX_BYTES} bytes")
        return content

    _, stdout, stderr = await asyncio.gather(feed(), drain(process.stdout), drain(process.stderr))
    await process.wait()
    return stdout, stderr


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what still runs of the command's process group, and read its pipes to their end so that they are closed."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process in uninterruptible sleep does not die; nobody waits for it longer than this.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_GRACE_S):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(65536):
                    pass
            await process.wait()


# ---- without an event loop, for the command line -----------------------------------------------------------------


def call(argv: Sequence[str], *, timeout_s: float = DEFAULT_TIMEOUT_S, check: bool = True) -> Completed:
    """`run` for callers without an event loop: small output, no standard input. Raises the same errors."""
    try:
        ended = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise CorralError("command-missing", f"run {argv[0]}", "it is not installed", f"install {argv[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise CorralError("command-timeout", shown(argv), f"did not end within {timeout_s:g} s") from error
    done = Completed(tuple(argv), ended.returncode, ended.stdout, ended.stderr)
    if check and done.returncode != 0:
        raise failure(done)
    return done


def become(argv: Sequence[str]) -> NoReturn:
    """Replace this process by `argv`: terminal, signals and exit status are its own. Raises `command-missing`."""
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 -- a list, and no shell is wanted
    except FileNotFoundError as error:
        raise CorralError("command-missing", f"run {argv[0]}", "it is not installed", f"install {argv[0]}") from error


Child: TypeAlias = "subprocess.Popen[bytes]"


def spawn(argv: Sequence[str], output_fd: int, *, own_session: bool = False) -> Child:
    """Start a long-lived child that writes both streams to `output_fd` and inherits nothing else.

    With `own_session` it outlives the terminal that it was started from.
    """
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=output_fd,
        stderr=output_fd,
        cwd="/",
        start_new_session=own_session,
        close_fds=True,
    )
