"""The firewall that a keeper process holds: found or started, loaded by differences, and followed by its pid."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
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
LINE_MAX_BYTES: Final = 1 << 20
PATH: Final = "br_netfilter"
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
        self._loaded: Loaded | None = None
        self._pid = 0
        self._died = asyncio.Event()
        self._child: proc.Child | None = None
        self._noting: asyncio.Future[None] | None = None

    async def ensure(self, policy: Policy) -> None:
        async with self._turn:
            if self._pid == 0:
                await self._attach()
            if self._loaded is None or self._loaded.policy != policy:
                await self._load(policy)

    async def state(self) -> FirewallState:
        epoch = self._loaded.epoch if self._loaded is not None else 0
        reason = "" if self._pid else "its keeper is being started"
        return FirewallState(self._pid != 0, reason, PATH, self._pid, epoch, self.ident.log_group)

    async def counters(self) -> Mapping[str, Count]:
        found: dict[str, Count] = {}
        for text in listing(self.ident):
            reply, body = await self._ask({"do": "list"}, text.encode())
            if not reply["done"]:
                raise _unavailable("read the firewall's counters", body.decode(errors="replace"))
            for name, count in (await asyncio.to_thread(counts_in, body)).items():
                known = found.get(name, Count())
                found[name] = Count(known.packets + count.packets, known.bytes + count.bytes)
        return found

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await self._died.wait()
            self._died.clear()
            async with self._turn:
                before, self._pid = self._loaded, 0
                self._loaded = None
                try:
                    await self._attach()
                    if before is not None and self._loaded is None:
                        await self._load(before.policy)
                        log.warning("the firewall's keeper had died, and was replaced", pid=self._pid)
                except CorralError as error:
                    log.warning("the firewall's keeper does not start", code=error.code, reason=error.reason)
                    self._loaded = before
                    asyncio.get_running_loop().call_later(1.0, self._died.set)

    # ---- the process ----

    async def _attach(self) -> None:
        """Adopt the keeper there is, or start one."""
        reply = await self._greet()
        if reply is not None:
            self._loaded = await asyncio.to_thread(self._remembered, reply)
            if self._loaded is None:  # of another version, or loaded by a daemon that could not write it down
                await self._end(reply["pid"])
                reply = None
        if reply is None:
            self._loaded = None
            reply = await self._start()
        self._watch(reply["pid"])

    async def _greet(self) -> dict[str, Any] | None:
        try:
            reply, _ = await self._ask({"do": "greet"})
        except CorralError:
            return None
        return reply

    async def _start(self) -> dict[str, Any]:
        argv = [sys.executable, "-I", "-S", keeper_process.__file__, str(self._socket), preamble(self.ident)]
        try:
            output = os.open(
                self._socket.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise storage_error(f"start the firewall's keeper at {self._socket}", error) from error
        try:
            self._child = proc.spawn(argv, output, own_session=True)
        finally:
            os.close(output)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if (reply := await self._greet()) is not None:
                return reply
            if self._child.poll() not in (None, keeper_process.TAKEN_STATUS):
                break
            await asyncio.sleep(LOOK_S)
        raise _unavailable("start the firewall's keeper", f"it does not answer; see {self._socket.with_suffix('.log')}")

    async def _end(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                os.kill(pid, signal.SIGKILL)
                await _readable(handle)
            finally:
                os.close(handle)
        self._socket.unlink(missing_ok=True)

    def _watch(self, pid: int) -> None:
        self._pid = pid
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self._died.set()
            return
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            if self._child is not None:
                self._child.poll()
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
            if known is None:
                raise
            log.warning("the firewall is loaded anew", code=error.code, reason=error.reason)
            await self._end(self._pid)
            self._loaded = None
            self._watch((await self._start())["pid"])
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
        reply, said = await self._ask(request, text, floor)
        if not reply["done"]:
            raise _unavailable("load the firewall", said.decode(errors="replace")[:500])
        self._loaded = new
        self._noting = asyncio.ensure_future(asyncio.to_thread(self._remember, new))

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
