"""A file that a user sends for an image, in the shape that files are carried in."""

from dataclasses import dataclass

from corral.hypervisor.reach import GuestFile
from corral.images.staging import StagedFile

MODE: int = 0o600


@dataclass(frozen=True)
class Upload:
    """A `GuestWriter` into the library; the path it tells in the end is the token."""

    staged: StagedFile

    async def write(self, data: bytes) -> None:
        await self.staged.write(data)

    async def commit(self) -> GuestFile:
        return GuestFile(await self.staged.commit(), self.staged.size_bytes, MODE)

    async def close(self) -> None:
        await self.staged.close()
