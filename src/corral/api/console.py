"""A serial console over a WebSocket: bytes both ways, as fast as the slower side takes them."""

import asyncio
import contextlib
from enum import IntEnum
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from corral.errors import CorralError
from corral.hypervisor.base import Console

# A close frame holds 125 bytes, two of them the code (RFC 6455, 5.5).
REASON_MAX_BYTES: Final = 123
CONSOLE_ENDED: Final = "the console ended: the VM is off, or somebody else took it"


class CloseCode(IntEnum):
    """RFC 6455, 7.4.1, and RFC's registry for the restart."""

    NORMAL = 1000
    INTERNAL = 1011
    RESTART = 1012


async def connect(socket: WebSocket, console: Console, stopping: asyncio.Event, ended: str = CONSOLE_ENDED) -> None:
    """Accept, and carry bytes until one side ends; say why in the close frame: `ended`, if the guest's side did."""
    await socket.accept()
    from_guest = asyncio.create_task(_from_guest(socket, console, ended))
    from_user = asyncio.create_task(_from_user(socket, console))
    stop = asyncio.create_task(_stopped(stopping))
    tasks = (from_guest, from_user, stop)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in tasks if task.done())
        code, reason = await first
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if code is not None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.close(code, reason.encode()[:REASON_MAX_BYTES].decode(errors="ignore"))


Ending = tuple[CloseCode | None, str]
"""How to close and why; None: the other side has gone."""


async def _from_guest(socket: WebSocket, console: Console, ended: str) -> Ending:
    try:
        while data := await console.read():
            await socket.send_bytes(data)
    except CorralError as error:
        return CloseCode.INTERNAL, f"{error.code}: {error.reason}"
    except WebSocketDisconnect:
        return None, ""
    return CloseCode.NORMAL, ended


async def _from_user(socket: WebSocket, console: Console) -> Ending:
    """The transport is not read while a write waits: that is the back-pressure."""
    try:
        while (message := await socket.receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            await console.write(data if data is not None else (message.get("text") or "").encode())
    except CorralError as error:
        return CloseCode.INTERNAL, f"{error.code}: {error.reason}"
    return None, ""


async def _stopped(stopping: asyncio.Event) -> Ending:
    await stopping.wait()
    return CloseCode.RESTART, "the daemon stops; the VM goes on"
