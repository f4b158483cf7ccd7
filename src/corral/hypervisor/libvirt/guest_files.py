"""Files into and out of a guest through its agent: in bounded pieces; written beside and renamed, so that they are there whole
or not at all. Directories travel as tar archives, which the guest's own tar makes and unpacks."""

import base64
import binascii
import contextlib
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from pydantic import Field

from corral.errors import CorralError
from corral.hypervisor.libvirt.guest_agent import Answer, Ask, Handle, Piece, nonsense, tell
from corral.hypervisor.libvirt.guest_script import ScriptFailedError, run_script
from corral.hypervisor.reach import GuestFile
from corral.model.limits import COPY_MAX_BYTES

# A command longer than the socket's buffer to the agent, about 200 KiB as base64, is never sent to its end by libvirt 9.0,
# which then takes the agent for dead.
WRITE_BYTES: Final = 96 * 1024
READ_BYTES: Final = 192 * 1024
LOOK_TIMEOUT_S: Final = 30.0
# A tar archive of COPY_MAX_BYTES is made or unpacked, or as much is written to a slow disk (sync).
WORK_TIMEOUT_S: Final = 600.0
FILE_BLOCK_BYTES: Final = 512  # the unit of `ulimit -f`

# What the scripts end with when they say no. Above what shells and tools use for their own, below those of signals.
_REFUSALS: Final[Mapping[int, tuple[str, str, str]]] = MappingProxyType(
    {
        101: ("guest-file-not-found", "there is no such file or directory in the guest", ""),
        102: ("guest-file-error", "it is a directory", "`corral cp -r` copies directories"),
        103: ("guest-file-error", "it is no regular file", "devices, pipes and sockets cannot be copied"),
        104: ("guest-file-error", "it is not a directory", "leave -r out"),
        105: ("guest-file-error", "there is something of that name already", "remove it, or choose another name"),
        106: (
            "guest-file-not-found",
            "the guest has no such directory to put it in",
            "make it: corral exec VM -- mkdir",
        ),
    }
)

_LOOK: Final = """\
[ -d "$1" ] && exit 102
[ -e "$1" ] || exit 101
[ -f "$1" ] || exit 103
stat -L -c '%s %a' "$1"
"""
# GNU tar ends with 1 when a file changed while it was read; others mean an error by it.
_PACK: Final = """\
p=${1%/}
[ -e "$1" ] || exit 101
[ -d "$1" ] && [ -n "$p" ] || exit 104
t=/tmp/.corral.$2; [ -d /var/tmp ] && t=/var/tmp/.corral.$2
umask 077; ulimit -f "$3"
case $(tar --version 2>/dev/null) in *GNU*) most=1 ;; *) most=0 ;; esac
tar -cf "$t" -C "$p" . ; e=$?
[ $e -le $most ] || { rm -f "$t"; exit $e; }
stat -c '%s' "$t"; stat -L -c '%a' "$p"; echo "$t"
"""
_PLACE: Final = """\
t=$1
[ -d "$t" ] && t=${t%/}/$2
[ -L "$t" ] && [ -z "$4" ] && t=$(readlink -f "$t")
if [ -n "$4" ]; then { [ -e "$t" ] || [ -L "$t" ]; } && exit 105
else
 [ -d "$t" ] && exit 102
 [ -e "$t" ] && [ ! -f "$t" ] && exit 103
fi
d=${t%/*}
[ -d "$d/" ] || exit 106
umask 077; set -C
: >"$d/.corral.$3" || exit 1
echo "$d/.corral.$3"; echo "$t"
"""
_PUT: Final = """\
[ -f "$2" ] && chown "$(stat -c %u:%g "$2")" "$1"
chmod "$3" "$1" && sync "$1" && mv -f "$1" "$2" || exit 1
command -v restorecon >/dev/null && restorecon "$2"
exit 0
"""
_UNPACK: Final = """\
mkdir -m 700 "$1.d" && tar -xf "$1" -C "$1.d" && chmod "$3" "$1.d" || exit 1
[ -e "$2" ] && exit 105
mv -T "$1.d" "$2" && rm -f "$1" || exit 1
command -v restorecon >/dev/null && restorecon -R "$2"
exit 0
"""
_REMOVE: Final = 'rm -rf "$1" "$1.d"'


class _Read(Piece):
    eof: bool = False


class _Written(Answer):
    count: int = Field(gt=0)


class _Nothing(Answer):
    pass


class _Temporary(NamedTuple):
    """A name of ours in the guest."""

    path: str


async def open_read(ask: Ask, path: str, *, tree: bool) -> "FileReader":
    """Raises `guest-file-not-found`, `guest-file-error`, `guest-agent-*`."""
    if not tree:
        size, mode = _numbers(await _run(ask, path, _LOOK, path))
        handle = await _open(ask, path, path, "r")
        return FileReader(ask, handle, GuestFile(path, size, mode), None)
    token, blocks = secrets.token_hex(8), COPY_MAX_BYTES // FILE_BLOCK_BYTES
    told = await _run(ask, path, _PACK, path, token, str(blocks), timeout_s=WORK_TIMEOUT_S)
    numbers, _, archive = told.strip("\n").rpartition("\n")
    size, mode = _numbers(numbers)
    temporary = _Temporary(_ours(archive, token))
    try:
        handle = await _open(ask, path, temporary.path, "r")
    except BaseException:
        await _remove(ask, temporary)
        raise
    return FileReader(ask, handle, GuestFile(path, size, mode), temporary)


async def open_write(ask: Ask, path: str, name: str, mode: int, *, tree: bool) -> "FileWriter":
    token = secrets.token_hex(8)
    told = await _run(ask, path, _PLACE, path, name, token, "tree" if tree else "")
    beside, _, target = told.strip("\n").partition("\n")
    temporary = _Temporary(_ours(beside, token))
    try:
        handle = await _open(ask, path, temporary.path, "w")
    except BaseException:
        await _remove(ask, temporary)
        raise
    return FileWriter(ask, handle, temporary, GuestFile(target, 0, mode), tree=tree)


class FileReader:
    """`GuestReader` of the contract."""

    def __init__(self, ask: Ask, handle: int, file: GuestFile, temporary: _Temporary | None) -> None:
        self._ask = ask
        self._handle: int | None = handle
        self._file = file
        self._temporary = temporary
        self._ended = False

    @property
    def file(self) -> GuestFile:
        return self._file

    async def read(self) -> bytes:
        if self._ended or self._handle is None:
            return b""
        answer = await tell(self._ask, "guest-file-read", _Read, {"handle": self._handle, "count": READ_BYTES})
        content = _decoded(answer.content)
        self._ended = answer.eof or not content
        return content

    async def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            await _close(self._ask, handle)
            if self._temporary is not None:
                await _remove(self._ask, self._temporary)


class FileWriter:
    """`GuestWriter` of the contract."""

    def __init__(self, ask: Ask, handle: int, temporary: _Temporary, file: GuestFile, *, tree: bool) -> None:
        self._ask = ask
        self._handle: int | None = handle
        self._temporary = temporary
        self._file = file
        self._tree = tree
        self._written = 0

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            part = view[:WRITE_BYTES]
            arguments = {"handle": self._handle, "buf-b64": base64.b64encode(part).decode()}
            written = await tell(self._ask, "guest-file-write", _Written, arguments)
            if written.count > len(part):
                raise nonsense("guest-file-write")
            view = view[written.count :]
            self._written += written.count

    async def commit(self) -> GuestFile:
        """What the guest's disk has no room for may only be noticed by the flush."""
        assert self._handle is not None
        await tell(self._ask, "guest-file-flush", _Nothing, {"handle": self._handle})
        handle, self._handle = self._handle, None
        await tell(self._ask, "guest-file-close", _Nothing, {"handle": handle})
        target, script = self._file.path, _UNPACK if self._tree else _PUT
        arguments = (self._temporary.path, target, f"{self._file.mode:o}")
        try:
            await _run(self._ask, target, script, *arguments, timeout_s=WORK_TIMEOUT_S)
        except BaseException:
            await _remove(self._ask, self._temporary)
            raise
        return GuestFile(target, self._written, self._file.mode)

    async def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            await _close(self._ask, handle)
            await _remove(self._ask, self._temporary)


async def _open(ask: Ask, path: str, opened: str, mode: str) -> int:
    try:
        return (await tell(ask, "guest-file-open", Handle, {"path": opened, "mode": mode}, listed=True)).number
    except CorralError as error:
        if error.code != "guest-agent-error":
            raise
        raise CorralError(error.code, f"open {path} in the guest", error.reason, error.hint) from error


async def _close(ask: Ask, handle: int) -> None:
    with contextlib.suppress(CorralError):  # the guest is gone, and with it the handle
        await tell(ask, "guest-file-close", _Nothing, {"handle": handle})


async def _remove(ask: Ask, temporary: _Temporary) -> None:
    with contextlib.suppress(CorralError, ScriptFailedError):  # nobody can do more about it
        await run_script(ask, _REMOVE, temporary.path, timeout_s=LOOK_TIMEOUT_S)


async def _run(ask: Ask, path: str, script: str, *arguments: str, timeout_s: float = LOOK_TIMEOUT_S) -> str:
    try:
        return await run_script(ask, script, *arguments, timeout_s=timeout_s)
    except ScriptFailedError as error:
        words = error.reason or f"the guest's shell ended with {error.code}"
        code, reason, hint = _REFUSALS.get(error.code, ("guest-file-error", words, ""))
        raise CorralError(code, f"{path} in the guest", reason, hint) from error


def _numbers(text: str) -> tuple[int, int]:
    """A size, and a mode in octal."""
    words = text.split()
    if len(words) != 2 or not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
        raise nonsense("stat")
    try:
        return int(words[0]), int(words[1], 8) & 0o777
    except ValueError as error:
        raise nonsense("stat") from error


def _ours(path: str, token: str) -> str:
    """The temporary path that the guest told, if it is one: it is removed with all that is in it."""
    if not path.endswith(f"/.corral.{token}"):
        raise nonsense("guest-exec")
    return path


def _decoded(content: str) -> bytes:
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise nonsense("guest-file-read") from error
    if len(data) > READ_BYTES:
        raise nonsense("guest-file-read")
    return data
