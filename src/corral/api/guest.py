"""Routes to a running guest: its screen and keys, its clock, passwords, files."""

import contextlib
from typing import Annotated, Final

from fastapi import Query, WebSocket
from starlette.responses import Response

from corral.api.call import CallParam, NameParam
from corral.api.console import connect
from corral.api.copying import receive_file, send_file
from corral.api.documents import model_response
from corral.api.route import noun_router
from corral.errors import CorralError
from corral.model.answers import GuestAnswer
from corral.model.reach import ClockAnswer, DisplayAnswer, SendKeysRequest, SetClockRequest, SetPasswordRequest

router = noun_router("guests")

PNG: Final = "image/png"

PathQuery = Annotated[str, Query(max_length=4096, description="In the guest, from the root.")]
TreeQuery = Annotated[bool, Query(description="A directory, as a tar archive.")]


@router.get(
    "/vms/{name}/screenshot",
    summary="What the screen shows",
    response_class=Response,
    responses={200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def screenshot(call: CallParam, name: NameParam) -> Response:
    picture = await call.services.guests.screenshot(call.caller, call.project, name)
    return Response(picture, media_type=PNG, headers={"Cache-Control": "no-store"})


@router.get("/vms/{name}/display", response_model=DisplayAnswer, summary="Where the graphical console listens")
async def display(call: CallParam, name: NameParam) -> Response:
    return model_response(await call.services.guests.display(call.caller, call.project, name))


@router.websocket("/vms/{name}/vnc")
async def open_vnc(socket: WebSocket, call: CallParam, name: NameParam) -> None:
    """The VM's VNC server, bytes both ways (RFB, RFC 6143): what noVNC speaks."""
    screen = await call.services.guests.open_vnc(call.caller, call.project, name)
    try:
        await connect(socket, screen, call.stopping, "the VM is off")
    finally:
        with contextlib.suppress(CorralError):
            await screen.close()


@router.post("/vms/{name}/keys", status_code=204, summary="Press keys", response_class=Response)
async def send_keys(call: CallParam, name: NameParam, body: SendKeysRequest) -> Response:
    await call.services.guests.send_keys(call.caller, call.project, name, body)
    return Response(status_code=204)


@router.post("/vms/{name}/nmi", status_code=204, summary="Inject a non-maskable interrupt", response_class=Response)
async def inject_nmi(call: CallParam, name: NameParam) -> Response:
    await call.services.guests.inject_nmi(call.caller, call.project, name)
    return Response(status_code=204)


@router.get("/vms/{name}/guest", response_model=GuestAnswer, summary="What the guest agent tells")
async def guest(call: CallParam, name: NameParam) -> Response:
    return model_response(await call.services.guests.details(call.caller, call.project, name))


@router.get("/vms/{name}/clock", response_model=ClockAnswer, summary="The guest's clock beside the host's")
async def clock(call: CallParam, name: NameParam) -> Response:
    return model_response(await call.services.guests.clock(call.caller, call.project, name))


@router.post("/vms/{name}/clock", response_model=ClockAnswer, summary="Set the guest's clock")
async def set_clock(call: CallParam, name: NameParam, body: SetClockRequest) -> Response:
    return model_response(await call.services.guests.set_clock(call.caller, call.project, name, body))


@router.post("/vms/{name}/password", status_code=204, summary="Set a user's password", response_class=Response)
async def set_password(call: CallParam, name: NameParam, body: SetPasswordRequest) -> Response:
    await call.services.guests.set_password(call.caller, call.project, name, body)
    return Response(status_code=204)


@router.websocket("/vms/{name}/files/read")
async def read_file(
    socket: WebSocket, call: CallParam, name: NameParam, path: PathQuery, tree: TreeQuery = False
) -> None:
    """A file out of the guest; see `corral.api.copying`."""
    reader = await call.services.guests.open_read(call.caller, call.project, name, path, tree=tree)
    try:
        await send_file(socket, reader, call.stopping, call.caller.request_id)
    finally:
        with contextlib.suppress(CorralError):
            await reader.close()


@router.websocket("/vms/{name}/files/write")
async def write_file(
    socket: WebSocket,
    call: CallParam,
    name: NameParam,
    path: PathQuery,
    file_name: Annotated[str, Query(max_length=255, description="Its name, if `path` is a directory.")],
    mode: Annotated[int, Query(ge=0, le=0o777, description="Permission bits, as a decimal number.")] = 0o644,
    tree: TreeQuery = False,
) -> None:
    """A file into the guest; see `corral.api.copying`."""
    writer = await call.services.guests.open_write(call.caller, call.project, name, path, file_name, mode, tree=tree)
    try:
        await receive_file(socket, writer, call.stopping, call.caller.request_id)
    finally:
        with contextlib.suppress(CorralError):
            await writer.close()
