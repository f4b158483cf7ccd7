"""The agent's cache takes its list in parts: what changes between two of them is neither lost nor brought back."""

import asyncio

from corral.agent import cache as module
from corral.agent.cache import Cache
from corral.model.volume import Volume, VolumeSpec
from corral.store.memory import MemoryStore
from corral.store.objects import Objects

from .conftest import NOW


def volume(number: int) -> Volume:
    uid = f"00000000-0000-4000-8000-{number:012d}"
    return Volume(name=f"v{number}", uid=uid, created_at=NOW, spec=VolumeSpec(size_bytes=2**30))


def test_what_comes_and_goes_during_a_list(monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)

    async def main() -> None:
        objects = Objects(MemoryStore())
        kept = [volume(number) for number in range(10, 20)]
        for one in kept:
            transaction = objects.transaction()
            transaction.create(one)
            await transaction.commit()
        cache = Cache(objects, lambda _kind, _uid: None)
        since = objects.store.revision
        watched = objects.store.watch("/", since)
        listing = asyncio.create_task(cache.load())
        await asyncio.sleep(0)
        while len(cache.volumes) < 4:
            await asyncio.sleep(0)
        comes, goes = volume(1), cache.volumes[kept[0].uid]
        transaction = objects.transaction()
        transaction.create(comes)
        transaction.delete(goes)
        await transaction.commit()
        for _ in range(4):  # each with the claim of its name
            cache.apply(await anext(watched))
        assert await listing == since
        assert comes.uid in cache.volumes
        assert goes.uid not in cache.volumes
        assert len(cache.volumes) == len(kept)
        assert await cache.load() > since
        assert len(cache.volumes) == len(kept)
        await watched.aclose()

    asyncio.run(main())
