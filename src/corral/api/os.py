"""Routes of operating systems: what is known of them."""

from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import TypeAdapter
from starlette.responses import Response

from corral.api.call import CallParam
from corral.api.documents import OsItems, items_response, model_response
from corral.api.route import noun_router
from corral.model.os import OsInfo

router = noun_router("systems", "/os")

_SYSTEMS: Final = TypeAdapter(tuple[OsInfo, ...])


@router.get("", response_model=OsItems, summary="List operating systems")
async def list_systems(
    call: CallParam,
    everything: Annotated[bool, Query(alias="all", description="Also those that only osinfo-db knows.")] = False,
) -> Response:
    return items_response(_SYSTEMS, await call.services.systems.list(call.caller, everything=everything))


@router.get("/{name}", response_model=OsInfo, summary="Show an operating system")
async def get_system(
    call: CallParam, name: Annotated[str, Path(max_length=64, description="Id or alias.")]
) -> Response:
    return model_response(await call.services.systems.get(call.caller, name))
