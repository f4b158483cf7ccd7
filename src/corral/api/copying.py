"""Files over a WebSocket: bytes in binary messages, everything else as JSON in text messages; so that an error has words in
the middle of a copy too.

Out of the guest: `{"file": …}`, bytes, `{"done": {"size_bytes": N}}`. Into it: bytes, each answered by
`{"written": N}`, then the client's `{"end": true}`, answered by `{"done": {…}}`. Either may end with `{"error": {…}}`.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from corral.api.console import CloseCode
from corral.api.errors import problem_document
from corral.errors import CorralError
from corral.hypervisor.reach import GuestFile, GuestReader, GuestWriter
from corral.model.limits import COPY_MAX_BYTES
from corral.model.reach import FileAnswer
from corral.names import format_bytes

END: Final = "end"
PREPARING_EVERY_S: Final = 0.5
TOO_LARGE_HINT: Final = "larger files go over SSH: corral ssh, scp"


async def send_file(socket: WebSocket, reader: GuestReader, stopping: asyncio.Event, request_id: str) -> None:
    """Carry a guest's file to the user."""

    async def transfer() -> None:
        _check_size(reader.file.path, reader.file.size_bytes)
        await socket.send_text(f'{{"file":{_answer(reader.file)}}}')
        total = 0
        while part := await reader.read():
            total += len(part)
            _check_size(reader.file.path, total)
            await socket.send_bytes(part)
        await socket.send_text(json.dumps({"done": {"size_bytes": total}}))

    await _carry(socket, transfer, stopping, request_id, _disconnected)


async def send_disk(
    socket: WebSocket,
    prepare: Callable[[Callable[[float], None]], Coroutine[Any, Any, GuestReader]],
    stopping: asyncio.Event,
    request_id: str,
) -> None:
    """Carry a disk to the user; while it is being made ready, `{"preparing": SHARE}` says how far that is."""

    async def transfer() -> None:
        shares = [0.0]
        preparing = asyncio.create_task(prepare(shares.append))
        try:
            while not (await asyncio.wait({preparing}, timeout=PREPARING_EVERY_S))[0]:
                await socket.send_text(json.dumps({"preparing": shares[-1]}))
                del shares[:-1]
            reader = preparing.result()
        finally:
            if not preparing.done():
                preparing.cancel()
                await asyncio.gather(preparing, return_exceptions=True)
        try:
            await socket.send_text(f'{{"file":{_answer(reader.file)}}}')
            total = 0
            while part := await reader.read():
                total += len(part)
                await socket.send_bytes(part)
            await socket.send_text(json.dumps({"done": {"size_bytes": total}}))
        finally:
            await reader.close()

    await _carry(socket, transfer, stopping, request_id, _disconnected)


async def receive_file(
    socket: WebSocket, writer: GuestWriter, stopping: asyncio.Event, request_id: str, max_bytes: int = COPY_MAX_BYTES
) -> None:
    """Carry a user's file into the guest (or into the image library); one that the user does not end is not there."""

    async def transfer() -> None:
        total = 0
        while (message := await socket.receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            if data is None:
                _check_end(message.get("text") or "")
                file = await writer.commit()
                await socket.send_text(f'{{"done":{_answer(file)}}}')
                return
            total += len(data)
            _check_size("the file", total, max_bytes)
            await writer.write(data)
            await socket.send_text(json.dumps({"written": total}))

    await _carry(socket, transfer, stopping, request_id, None)


async def _carry(
    socket: WebSocket,
    transfer: Callable[[], Coroutine[Any, Any, None]],
    stopping: asyncio.Event,
    request_id: str,
    left: Callable[[WebSocket], Coroutine[Any, Any, None]] | None,
) -> None:
    """Accept and run `transfer`, until the daemon stops or, as `left` tells, the user has gone."""
    await socket.accept()
    work = asyncio.create_task(transfer())
    ends = [asyncio.create_task(_set(stopping)), *([asyncio.create_task(left(socket))] if left else [])]
    code = CloseCode.NORMAL
    try:
        await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            with contextlib.suppress(WebSocketDisconnect):
                code = await _told(socket, work, request_id)
        elif stopping.is_set():
            code = CloseCode.RESTART
    finally:
        for task in (work, *ends):
            task.cancel()
        await asyncio.gather(work, *ends, return_exceptions=True)
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.close(code, "" if code is not CloseCode.RESTART else "the daemon stops; copy it again")


async def _told(socket: WebSocket, work: Awaitable[None], request_id: str) -> CloseCode:
    """How to close; an error was told."""
    try:
        await work
    except CorralError as error:
        problem = problem_document(error, request_id)
        await socket.send_text(f'{{"error":{problem.decode()}}}')
        return CloseCode.INTERNAL
    return CloseCode.NORMAL


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _disconnected(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _answer(file: GuestFile) -> str:
    return FileAnswer(path=file.path, size_bytes=file.size_bytes, mode=file.mode).model_dump_json()


def _check_size(path: str, count: int, max_bytes: int = COPY_MAX_BYTES) -> None:
    if count > max_bytes:
        limit = format_bytes(max_bytes)
        raise CorralError("body-too-large", f"copy {path}", f"it has more than {limit}", TOO_LARGE_HINT)


def _check_end(text: str) -> None:
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, dict) or message.get(END) is not True:
        raise CorralError("invalid-document", "copy a file", "neither bytes nor the end", 'send {"end": true}')
