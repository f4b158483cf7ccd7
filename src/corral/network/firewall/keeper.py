"""The firewall that a keeper process holds: found or started, loaded by differences, and followed by its pid."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from corral import files, proc
from corral.errors import CorralError
from corral.files import storage_error
from corral.log import logger
from corral.network.firewall import keeper_process
from corral.network.firewall.base import Count, FirewallState
from corral.network.firewall.compiler import compile_policy, preamble
from corral.network.firewall.counting import counts_in, listing
from corral.network.firewall.form import Form, batch, changes, rebuilt
from corral.network.firewall.layout import EPOCHS, Ident
from corral.network.firewall.policy import Policy

START_S: Final = 10.0
LOOK_S: Final = 0.01
ANSWER_S: Final = 30.0
LIST_S: Final = 30.0
AGAIN_S: Final = 1.0
LINE_MAX_BYTES: Final = 1 << 20
PATH: Final = "br_netfilter"
_UCRED: Final = struct.Struct("3i")
log: Final = logger("firewall")
_POLICY: Final = TypeAdapter(Policy)


@dataclass(frozen=True)
class Loaded:
    """What the keeper holds, as far as this process knows."""

    version: str
    epoch: int
    policy: Policy
    form: Form


class KeptFirewall:
    """`Firewall` of one installation. `follow` is to run beside: it brings a keeper that died back, with what it held."""

    def __init__(self, installation_id: str, run_dir: Path) -> None:
        self.ident = Ident(installation_id)
        self._socket = run_dir / "firewall.sock"
        self._record = run_dir / "firewall.json"
        self._turn = asyncio.Lock()
        self._wanted = Policy()
        self._loaded: Loaded | None = None
        self._sent: Loaded | None = None
        """What the keeper was asked to load, while nobody knows whether it has: whoever asked may not have waited."""
        self._pid = 0
        self._died = asyncio.Event()
        self._child: proc.Child | None = None
        self._noting: asyncio.Future[None] | None = None
        self._counting = asyncio.Lock()

    async def ensure(self, policy: Policy) -> None:
        async with self._turn:
            self._wanted = policy
            await self._hold()

    async def _hold(self) -> None:
        if self._pid == 0:
            await self._attach()
        elif self._sent is not None:
            await self._make_sure(self._sent)
        if self._loaded is None or self._loaded.policy != self._wanted:
            await self._load(self._wanted)

    async def state(self) -> FirewallState:
        epoch = self._loaded.epoch if self._loaded is not None else 0
        reason = "" if self._pid else "its keeper is being started"
        return FirewallState(self._pid != 0, reason, PATH, self._pid, epoch, self.ident.log_group)

    async def counters(self) -> Mapping[str, Count]:
        """Read past the keeper, which is not to be kept from its work: it takes a while where there are thousands of rules,
        and begins anew whenever anybody changes some."""
        found: dict[str, Count] = {}
        async with self._counting:
            for argv in listing(self.ident):
                for name, count in (await asyncio.to_thread(counts_in, await _listed(argv))).items():
                    known = found.get(name, Count())
                    found[name] = Count(known.packets + count.packets, known.bytes + count.bytes)
        return found

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await self._died.wait()
            self._died.clear()
            async with self._turn:
                try:
                    await self._hold()
                    log.warning("the firewall's keeper had died, and was replaced", pid=self._pid)
                except CorralError as error:
                    log.warning("the firewall's keeper does not start", code=error.code, reason=error.reason)
                    asyncio.get_running_loop().call_later(AGAIN_S, self._died.set)

    # ---- the process ----

    async def _attach(self) -> None:
        """Adopt the keeper there is, or start one."""
        self._loaded = self._sent = None
        reply = await self._greet()
        if reply is None:
            await self._end(self._listening())  # one that hangs
        elif self._child is None or reply["pid"] != self._child.pid or reply["version"]:
            self._loaded = await asyncio.to_thread(self._remembered, reply)
            if self._loaded is None:  # of another version, or loaded by a daemon that could not write it down
                await self._end(reply["pid"])
                reply = None
        if reply is None:
            reply = await self._start()
        self._watch(reply["pid"])

    async def _renew(self) -> None:
        pid, self._pid = self._pid, 0
        self._loaded = self._sent = None
        await self._end(pid)
        self._watch((await self._start())["pid"])

    async def _make_sure(self, sent: Loaded) -> None:
        """Whether it has loaded what it was sent last."""
        reply, known = await self._greet(), self._loaded
        held = reply["version"] if reply is not None and reply["pid"] == self._pid else None
        if held == sent.version:
            self._has_loaded(sent)
        elif held == (known.version if known is not None else ""):
            self._sent = None
        else:
            log.warning("the firewall's keeper does not answer, and is replaced", pid=self._pid)
            await self._renew()

    def _listening(self) -> int:
        """The process behind the socket, whether it answers or not; 0: there is none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
            try:
                asking.connect(str(self._socket))
            except OSError:
                return 0
            credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            return int(_UCRED.unpack(credentials)[0])

    async def _greet(self) -> dict[str, Any] | None:
        try:
            reply, _ = await self._ask({"do": "greet"})
        except CorralError:
            return None
        return reply

    async def _start(self) -> dict[str, Any]:
        argv = [sys.executable, "-I", "-S", keeper_process.__file__, str(self._socket), preamble(self.ident)]
        child = self._child
        if child is None or child.poll() is not None:  # else it is on its way: a busy host's takes long
            child = self._child = self._spawn(argv)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if (reply := await self._greet()) is not None:
                return reply
            if child.poll() not in (None, keeper_process.TAKEN_STATUS):
                break
            await asyncio.sleep(LOOK_S)
        raise _unavailable("start the firewall's keeper", f"it does not answer; see {self._socket.with_suffix('.log')}")

    def _spawn(self, argv: list[str]) -> proc.Child:
        try:
            output = os.open(
                self._socket.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise storage_error(f"start the firewall's keeper at {self._socket}", error) from error
        try:
            return proc.spawn(argv, output, own_session=True)
        finally:
            os.close(output)

    async def _end(self, pid: int) -> None:
        if pid == 0:
            return
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                await _readable(handle)
            except TimeoutError as error:
                raise _unavailable("end the firewall's keeper", f"process {pid} does not die") from error
            finally:
                os.close(handle)
        self._socket.unlink(missing_ok=True)

    def _watch(self, pid: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self._died.set()
            return
        self._pid = pid

        def gone() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            if self._child is not None:
                self._child.poll()
            if self._pid == pid:  # else it was ended, and another one has its place
                self._pid = 0
                self._died.set()

        loop.add_reader(handle, gone)

    # ---- what it holds ----

    async def _load(self, policy: Policy) -> None:
        known = self._loaded
        epoch = random.randint(1, EPOCHS) if known is None else known.epoch % EPOCHS + 1  # noqa: S311 -- no secret
        form = await asyncio.to_thread(compile_policy, policy, self.ident, epoch)
        try:
            await self._send(known, Loaded(os.urandom(8).hex(), epoch, policy, form))
        except CorralError as error:
            if known is None or self._sent is not None:
                raise
            log.warning("the firewall is loaded anew", code=error.code, reason=error.reason)
            await self._renew()
            await self._send(None, Loaded(os.urandom(8).hex(), epoch, policy, form))

    async def _send(self, known: Loaded | None, new: Loaded) -> None:
        text, floor = await asyncio.to_thread(_texts, known, new)
        request = {
            "do": "load",
            "version": new.version,
            "epoch": new.epoch,
            "floor": [self.ident.floor],
            "taps": [card.tap for card in new.policy.cards],
            "bridges": [net.bridge for net in new.policy.nets],
            "floor_bytes": len(floor),
        }
        self._sent = new
        reply, said = await self._ask(request, text, floor)
        if reply["done"]:
            self._has_loaded(new)
        else:
            self._sent = None
            raise _unavailable("load the firewall", said.decode(errors="replace")[:500])

    def _has_loaded(self, new: Loaded) -> None:
        self._loaded, self._sent = new, None
        self._noting = asyncio.ensure_future(self._note(self._noting, new))

    async def _note(self, before: "asyncio.Future[None] | None", new: Loaded) -> None:
        """The last one stays."""
        if before is not None:
            await asyncio.wait({before})
        if new is self._loaded:
            await asyncio.to_thread(self._remember, new)

    def _remember(self, loaded: Loaded) -> None:
        """For the next daemon, so that it changes what is loaded by differences, too."""
        head = {"version": loaded.version, "epoch": loaded.epoch, "code": _code()}
        text = json.dumps(head).encode() + b"\n" + _POLICY.dump_json(loaded.policy)
        try:
            files.write_atomic(self._record, text, 0o600)
        except CorralError as error:
            log.warning("the firewall's record is not written", reason=error.reason)

    def _remembered(self, reply: Mapping[str, Any]) -> Loaded | None:
        try:
            head_text, _, policy_text = self._record.read_bytes().partition(b"\n")
            head = json.loads(head_text)
            policy = _POLICY.validate_json(policy_text)
        except (OSError, ValueError):
            return None
        if reply["protocol"] != keeper_process.PROTOCOL or not reply["version"] or head["version"] != reply["version"]:
            return None
        if head["code"] != _code():
            return None
        return Loaded(head["version"], head["epoch"], policy, compile_policy(policy, self.ident, head["epoch"]))

    # ---- the wire ----

    async def _ask(
        self, request: dict[str, Any], body: bytes = b"", floor: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        asked = f"ask the firewall's keeper to {request['do']}"
        try:
            async with asyncio.timeout(ANSWER_S), _connected(self._socket) as (reader, writer):
                writer.write(json.dumps({**request, "bytes": len(body)}).encode() + b"\n" + body + floor)
                await writer.drain()
                reply: dict[str, Any] = json.loads(await reader.readline())
                return reply, await reader.readexactly(reply["bytes"])
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            raise _unavailable(asked, str(error) or "no answer in time") from error


@contextlib.asynccontextmanager
async def _connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path, limit=LINE_MAX_BYTES)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _readable(descriptor: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(START_S):
            await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def _listed(argv: Sequence[str]) -> bytes:
    try:
        async with asyncio.timeout(LIST_S), contextlib.aclosing(proc.stream(argv)) as chunks:
            return b"".join([chunk async for chunk in chunks])
    except (CorralError, TimeoutError) as error:
        reason = error.reason if isinstance(error, CorralError) else f"not within {LIST_S:g} s"
        raise _unavailable("read the firewall's counters", reason) from error


def _texts(known: Loaded | None, new: Loaded) -> tuple[bytes, bytes]:
    """The transaction, and the one that puts the floor back."""
    floor = [table for table in new.form if not table.owned]
    restoring = batch(rebuilt(floor)).encode()
    if known is not None:
        return batch(changes(known.form, new.form)).encode(), restoring
    owned = tuple(table for table in new.form if table.owned)
    return batch((*rebuilt(floor), *changes((), owned))).encode(), restoring


@lru_cache(maxsize=1)
def _code() -> str:
    """Of this package: another version may compile the same policy into something else."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _unavailable(asked: str, reason: str) -> CorralError:
    return CorralError("firewall-unavailable", asked, reason, "corral doctor")
