"""Volumes, for reading."""

from corral.model.requests import ListRequest
from corral.model.volume import Volume
from corral.services import listing
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.documents import Document, Listing


class VolumeService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Volume, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Volume, name)
