"""Routes of sessions with a VM: run a command, its console, its document, what it uses."""

import asyncio
import base64
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Final, Literal

from fastapi import Query, WebSocket
from starlette.responses import PlainTextResponse, Response

from corral.api.call import CallParam, NameParam
from corral.api.console import connect
from corral.api.documents import model_response
from corral.api.errors import problem_document
from corral.api.live import LiveResponse
from corral.api.route import noun_router
from corral.errors import CorralError
from corral.hypervisor.base import ExecResult
from corral.model.answers import UsageReport, VmMemory
from corral.model.requests import ExecRequest

router = noun_router("sessions")

NDJSON: Final = "application/x-ndjson"
EXEC_HEARTBEAT: Final = b'{"heartbeat":true}\n'
EXEC_CHUNK_BYTES: Final = 48 * 1024
# A refusal (no such VM, no agent) is known by then and gets its own status; after that it comes as the last line.
EXEC_GRACE_S: Final = 5.0

_EXEC_END: Final = '{"exit_code":0,"signal":null,"truncated":false,"streamed":true}\n'
_EXEC_EXAMPLE: Final = '{"stream":"stdout","data":"TGludXgK"}\n{"heartbeat":true}\n' + _EXEC_END


@router.post(
    "/vms/{name}/exec",
    summary="Run a command in the guest",
    response_class=Response,
    responses={
        200: {
            "description": "Lines of JSON: parts of both streams (base64) as they are written, heartbeats, and at the "
            "end the exit code or signal, or `error` with a problem. Who leaves before it stops the command.",
            "content": {NDJSON: {"schema": {"type": "string"}, "example": _EXEC_EXAMPLE}},
        }
    },
)
async def exec_in_vm(call: CallParam, name: NameParam, body: ExecRequest) -> Response:
    lines = _ExecLines()
    running = asyncio.create_task(call.services.sessions.exec(call.caller, call.project, name, body, lines.add))
    running.add_done_callback(lines.end)
    try:
        await lines.begun(EXEC_GRACE_S)
    except asyncio.CancelledError:
        running.cancel()
        raise
    if running.done() and (error := running.exception()) is not None and lines.empty:
        raise error
    return LiveResponse(
        _exec_frames(lines, running, call.caller.request_id),
        media_type=NDJSON,
        heartbeat=EXEC_HEARTBEAT,
        stopping=call.stopping,
    )


class _ExecLines:
    """What the command writes, waiting to be sent. What the guest may say in all bounds it."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._ended = False

    @property
    def empty(self) -> bool:
        return not self._waiting

    def add(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        for chunk in _chunks(data):
            line = {"stream": stream, "data": base64.b64encode(chunk).decode()}
            self._waiting.append(json.dumps(line).encode() + b"\n")
        self._news.set()

    def end(self, _running: asyncio.Task[ExecResult]) -> None:
        self._ended = True
        self._news.set()

    async def begun(self, timeout_s: float) -> None:
        """Something came, it has ended, or it takes longer than that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        while self._waiting or not self._ended:
            while self._waiting:
                yield self._waiting.popleft()
            if not self._ended:
                self._news.clear()
                await self._news.wait()


async def _exec_frames(
    lines: _ExecLines, running: asyncio.Task[ExecResult], request_id: str
) -> AsyncGenerator[bytes, None]:
    """Closed before its end, since the client left, it stops the command."""
    try:
        async for line in lines:
            yield line
        result = await running
    except CorralError as error:
        yield b'{"error":%s}\n' % problem_document(error, request_id)
        return
    finally:
        running.cancel()
    end = {"exit_code": result.exit_code, "signal": result.signal}
    end.update(truncated=result.truncated, streamed=result.streamed)
    yield json.dumps(end).encode() + b"\n"


def _chunks(data: bytes) -> Iterator[bytes]:
    return (data[start : start + EXEC_CHUNK_BYTES] for start in range(0, len(data), EXEC_CHUNK_BYTES))


@router.websocket("/vms/{name}/console")
async def open_console(
    socket: WebSocket,
    call: CallParam,
    name: NameParam,
    force: Annotated[bool, Query(description="Take the console from who holds it.")] = False,
) -> None:
    """The serial console, bytes both ways."""
    console = await call.services.sessions.open_console(call.caller, call.project, name, force=force)
    try:
        await connect(socket, console, call.stopping)
    finally:
        with contextlib.suppress(CorralError):
            await console.close()


@router.get(
    "/vms/{name}/console/log",
    summary="What the serial console showed",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def console_log(call: CallParam, name: NameParam) -> Response:
    content = await call.services.sessions.console_log(call.caller, call.project, name)
    return Response(content, media_type="application/octet-stream")


@router.get("/vms/{name}/document", summary="The hypervisor's own document", response_class=PlainTextResponse)
async def document(call: CallParam, name: NameParam) -> Response:
    return PlainTextResponse(await call.services.sessions.document(call.caller, call.project, name))


@router.get("/vms/{name}/memory", response_model=VmMemory, summary="What a running VM takes of the host's memory")
async def memory_of_vm(call: CallParam, name: NameParam) -> Response:
    """Its own and shared parts, as the kernel counts them."""
    return model_response(await call.services.sessions.memory(call.caller, call.project, name))


@router.get("/usage", response_model=UsageReport, summary="CPU, memory, disk and network of the running VMs")
async def usage(call: CallParam) -> Response:
    return model_response(await call.services.sessions.usage(call.caller, call.project))
