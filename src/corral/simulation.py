"""The fake world's ground: calls that can be traced, delayed, broken and cut short, and a file that outlives the process.

The fakes of the hypervisor, the storage, the images and the network share one `Simulation`. A *fault* is aimed at the
n-th call of a kind; a *crash* makes this incarnation of the process silent for ever, as `kill -9` does: nothing that
it calls afterwards has any effect or returns.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Generic, TypeVar

from pydantic import TypeAdapter

from corral.errors import CorralError
from corral.files import storage_error, write_atomic

T = TypeVar("T")

# So much is appended before the file is written anew: reading and writing it takes a fraction of a second.
COMPACT_BYTES: Final = 64 * 2**20


class FaultKind(StrEnum):
    ERROR = "error"  # refused, nothing was done
    LATE_ERROR = "late-error"  # done, yet the answer is an error (a timeout whose call went through)
    HANG = "hang"  # no answer until the caller gives up; nothing was done
    LATE_HANG = "late-hang"  # done, but no answer until the caller gives up
    CRASH_BEFORE = "crash-before"
    CRASH_AFTER = "crash-after"


@dataclass(frozen=True)
class Fault:
    """`call` is a name like `hypervisor.start`, or `*` for any; `nth` counts calls that match, from 1."""

    kind: FaultKind
    call: str = "*"
    nth: int = 1
    times: int = 1
    error: CorralError | None = None

    def problem(self, call: str) -> CorralError:
        return self.error or CorralError("hypervisor-error", call, "a fault was injected")


@dataclass
class Simulation:
    """What all fakes of one world share. `latency_s` is waited in every call."""

    save_path: Path | None = None
    """Where the world outlives the process; None: nowhere."""
    latency_s: float = 0.0
    trace: list[str] | None = None
    """Names of calls in order, where a test asked for them."""
    faults: list[Fault] = field(default_factory=list)
    connected: bool = True
    crashed: bool = False
    on_call: Callable[[str], None] | None = None
    """Hears of each call before it has an effect."""
    on_crash: Callable[[], None] | None = None
    parts: dict[str, object] = field(default_factory=dict)
    """What several fakes of this world have in common, by name."""
    _counts: dict[int, int] = field(default_factory=dict)
    _file: "WorldFile | None" = field(init=False)

    def __post_init__(self) -> None:
        self._file = WorldFile(self.save_path) if self.save_path is not None else None

    def section(self, name: str, shape: TypeAdapter[T]) -> "Section[T]":
        """What a part of the world keeps under `name`."""
        return Section(name, shape, self._file)

    def close(self) -> None:
        """No more changes; the next process finds a short file."""
        if self._file is not None:
            self._file.compact()

    def inject(self, fault: Fault) -> None:
        self.faults.append(fault)

    def clear(self) -> None:
        """No more faults."""
        self.faults.clear()
        self._counts.clear()

    def revive(self) -> None:
        """A new process over the same world."""
        self.crashed = False

    @asynccontextmanager
    async def call(self, name: str, *, connection: bool = False) -> AsyncIterator[None]:
        """Around one call's effect. With `connection` it is refused while the hypervisor is away."""
        if self.crashed:
            await self.hang()
        if self.trace is not None:
            self.trace.append(name)
        if self.on_call is not None:
            self.on_call(name)
        fault = self._fault(name) if self.faults else None
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if fault is not None:
            await self._before(fault, name)
        if connection and not self.connected:
            raise CorralError("hypervisor-unavailable", name, "not connected to the hypervisor", "start libvirtd")
        yield
        if fault is not None:
            await self._after(fault, name)

    async def hang(self) -> None:
        """Never return; only the caller's own cancellation ends it."""
        await asyncio.get_running_loop().create_future()

    def crash(self) -> None:
        """`kill -9` of this incarnation."""
        self.crashed = True
        if self.on_crash is not None:
            self.on_crash()

    def _fault(self, name: str) -> Fault | None:
        hit: Fault | None = None
        for index, fault in enumerate(self.faults):
            if fault.call not in ("*", name):
                continue
            self._counts[index] = seen = self._counts.get(index, 0) + 1
            if hit is None and fault.nth <= seen < fault.nth + fault.times:
                hit = fault
        return hit

    async def _before(self, fault: Fault, name: str) -> None:
        if fault.kind is FaultKind.ERROR:
            raise fault.problem(name)
        if fault.kind is FaultKind.HANG:
            await self.hang()
        if fault.kind is FaultKind.CRASH_BEFORE:
            self.crash()
            await self.hang()

    async def _after(self, fault: Fault, name: str) -> None:
        if fault.kind is FaultKind.LATE_ERROR:
            raise fault.problem(name)
        if fault.kind is FaultKind.LATE_HANG:
            await self.hang()
        if fault.kind is FaultKind.CRASH_AFTER:
            self.crash()
            await self.hang()


class Section(Generic[T]):
    """Values by key: what a former process kept, and where each change is written before anybody hears of it."""

    def __init__(self, name: str, shape: TypeAdapter[T], file: "WorldFile | None") -> None:
        self._name = name
        self._shape = shape
        self._file = file

    def restore(self) -> dict[str, T]:
        """Everything that was kept. Asked once."""
        saved = self._file.take(self._name) if self._file is not None else {}
        return {key: self._shape.validate_python(value) for key, value in saved.items()}

    def keep(self, key: str, value: T | None) -> None:
        """Write the value as it stands now; None: it is gone. Raises `disk-full` or `storage-error`."""
        if self._file is not None:
            document = b"null" if value is None else self._shape.dump_json(value)
            self._file.append(b'["%s",%s,%s]\n' % (self._name.encode(), json.dumps(key).encode(), document))


class WorldFile:
    """A journal: one line a change, `[section, key, value or null]`; the last one of a key counts.

    It is written without fsync: `kill -9` takes nothing that was written, and a pretended host need not outlive a real
    one's loss of power."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken: dict[str, dict[str, object]] = {}
        for (section, key), (value, _) in self._read().items():
            self._taken.setdefault(section, {})[key] = value
        self._fd = self._opened()
        self._bytes = self._compacted_bytes = path.stat().st_size

    def take(self, section: str) -> dict[str, object]:
        """What the file held of one section when it was opened."""
        return self._taken.pop(section, {})

    def append(self, line: bytes) -> None:
        self._bytes += len(line)
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:
            raise storage_error(f"write {self._path}", error) from error
        if self._bytes > 2 * self._compacted_bytes + COMPACT_BYTES:
            self.compact()

    def compact(self) -> None:
        """Write anew what still counts."""
        write_atomic(self._path, b"".join(line for _, line in self._read().values()))
        os.close(self._fd)
        self._fd = self._opened()
        self._bytes = self._compacted_bytes = self._path.stat().st_size

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _read(self) -> dict[tuple[str, str], tuple[object, bytes]]:
        """What counts, as value and line. A line without its end was cut by the death of its process, which had told
        nobody of it."""
        found: dict[tuple[str, str], tuple[object, bytes]] = {}
        if not self._path.exists():
            return found
        with self._path.open("rb+") as stream:
            whole = 0
            for line in stream:
                if not line.endswith(b"\n"):
                    stream.truncate(whole)
                    break
                whole += len(line)
                section, key, value = json.loads(line)
                found.pop((section, key), None)
                if value is not None:
                    found[section, key] = (value, line)
        return found
