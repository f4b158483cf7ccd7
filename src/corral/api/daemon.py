"""Routes of the daemon itself: what it is, whether it can work, its figures, a copy of its database."""

import asyncio
from pathlib import Path
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from corral.api.call import CallParam, FaceParam
from corral.api.documents import model_response
from corral.api.metrics import render
from corral.api.route import noun_router
from corral.model.answers import DaemonStatus, Readiness, RecoveryReport

OCTETS: Final = "application/octet-stream"

router = noun_router("daemon")
probes = noun_router("daemon")


class PassingFile(FileResponse):
    """A file that is sent once and gone, whether it arrived or not."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.to_thread(Path(self.path).unlink, missing_ok=True)


@router.get("/daemon", response_model=DaemonStatus, summary="The daemon's own state")
async def status(call: CallParam) -> Response:
    return model_response(await call.services.daemon.status(call.caller))


@router.post(
    "/admin/backup",
    summary="A copy of the database",
    response_class=Response,
    responses={200: {"content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def backup(call: CallParam) -> Response:
    """Consistent, made while the daemon works; `corral admin restore-db` puts it back."""
    path = await call.services.daemon.backup(call.caller)
    return PassingFile(path, media_type=OCTETS, headers={"Cache-Control": "no-store"})


@router.post("/admin/recover", response_model=RecoveryReport, summary="Rebuild a lost database")
async def recover(call: CallParam) -> Response:
    """From the domains' metadata and the files beside the disks."""
    return model_response(await call.services.daemon.recover(call.caller))


@probes.get("/healthz", summary="Is the daemon alive?", response_class=Response)
async def alive() -> Response:
    return Response(b'{"alive":true}', media_type="application/json")


@probes.get("/readyz", response_model=Readiness, summary="Can the daemon work?", responses={503: {"model": Readiness}})
async def ready(face: FaceParam) -> Response:
    """503 until the store can be written, the hypervisor answers and the first look around is done."""
    readiness = await face.services.daemon.readiness()
    return model_response(readiness, status_code=200 if readiness.ready else 503)


@probes.get("/metrics", summary="Figures for Prometheus", response_class=Response)
async def metrics(face: FaceParam, call: CallParam) -> Response:
    page = await render(face.metrics, face.services, call.caller, call.project)
    return Response(page, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
