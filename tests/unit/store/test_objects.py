"""The typed door to the store: objects, claims, conflicts, watches."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from corral.errors import CorralError
from corral.model.event import Event
from corral.model.identity import Project
from corral.model.image import Image, ImageSource, ImageSpec
from corral.names import new_uid
from corral.store.memory import MemoryStore
from corral.store.objects import EVENTS, Objects, claim_key, decode, name_claim, with_revision

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _image(name: str = "debian-12", **labels: str) -> Image:
    spec = ImageSpec(catalogue=name, source=ImageSource.BUILD)
    return Image(name=name, uid=new_uid(), created_at=NOW, spec=spec, labels=labels)


def _run(scenario: Callable[[Objects], Awaitable[None]]) -> None:
    async def run() -> None:
        store = MemoryStore()
        await scenario(Objects(store))
        await store.close()

    asyncio.run(run())


async def _create(objects: Objects, *values: Image) -> None:
    transaction = objects.transaction()
    for value in values:
        transaction.create(value)
    await transaction.commit()


def test_an_object_is_found_by_uid_and_by_name_with_its_revision():
    async def scenario(objects: Objects) -> None:
        image = _image()
        await _create(objects, image)
        expected = image.changed(revision=1)
        assert await objects.get(Image, image.uid) == expected
        assert await objects.find(Image, "default", "debian-12") == expected
        assert await objects.require(Image, "default", "debian-12") == expected
        assert await objects.list(Image) == [expected]
        assert await objects.owner(name_claim("image", "default", "debian-12")) == image.uid
        assert await objects.get(Image, new_uid()) is None
        assert await objects.find(Image, "other", "debian-12") is None
        assert await objects.list(Project) == []
        with pytest.raises(CorralError) as missing:
            await objects.require(Image, "default", "nothing")
        assert missing.value.code == "image-not-found"

    _run(scenario)


def test_the_document_is_the_stored_bytes_with_the_revision_in_front():
    async def scenario(objects: Objects) -> None:
        image = _image(team="a")
        await _create(objects, image)
        record = (await objects.records(Image)).records[0]
        assert with_revision(record).startswith(b'{"revision":1,"kind":"image",')
        assert Image.model_validate_json(with_revision(record)) == decode(Image, record)
        assert b"revision" not in record.value

    _run(scenario)


def test_a_name_is_claimed_once_and_free_after_the_deletion():
    async def scenario(objects: Objects) -> None:
        first, second = _image(), _image()
        await _create(objects, first)
        with pytest.raises(CorralError) as taken:
            await _create(objects, second)
        assert taken.value.code == "precondition-failed"
        assert taken.value.context["key"] == name_claim("image", "default", "debian-12")
        assert await objects.get(Image, second.uid) is None
        transaction = objects.transaction()
        transaction.delete(first.changed(revision=1))
        await transaction.commit()
        await _create(objects, second)
        assert [image.uid for image in await objects.list(Image)] == [second.uid]

    _run(scenario)


def test_of_two_changes_of_what_was_read_once_the_second_is_stale():
    async def scenario(objects: Objects) -> None:
        await _create(objects, _image())
        read = await objects.require(Image, "default", "debian-12")
        for label, conflicts in (("first", False), ("second", True)):
            transaction = objects.transaction()
            transaction.update(read.changed(labels={"by": label}))
            if conflicts:
                with pytest.raises(CorralError) as stale:
                    await transaction.commit()
                assert stale.value.context == {"key": read.key, "revision": 2}
            else:
                await transaction.commit()
        assert (await objects.require(Image, "default", "debian-12")).labels == {"by": "first"}

    _run(scenario)


def test_what_a_transaction_requires_must_be_unchanged():
    async def scenario(objects: Objects) -> None:
        await _create(objects, _image())
        read = await objects.require(Image, "default", "debian-12")
        transaction = objects.transaction()
        transaction.delete(read)
        await transaction.commit()
        transaction = objects.transaction()
        transaction.require(read)
        transaction.claim(claim_key("mac", "host", "52:54:00:00:00:01"), new_uid())
        with pytest.raises(CorralError) as gone:
            await transaction.commit()
        assert gone.value.code == "precondition-failed"

    _run(scenario)


def test_claims_and_events_go_with_the_change():
    async def scenario(objects: Objects) -> None:
        image, key = _image(), claim_key("address", "net", "192.168.1.2")
        transaction = objects.transaction()
        transaction.create(image)
        transaction.claim(key, image.uid)
        transaction.event(
            Event(
                time=NOW,
                project="default",
                reason="ImageReady",
                message="ready",
                object_kind="image",
                object_uid=image.uid,
                object_name=image.name,
                source="agent",
            )
        )
        committed = await transaction.commit()
        assert committed.sequences == (1,)
        assert await objects.owner(key) == image.uid
        entry = await objects.store.journal_last(EVENTS)
        assert entry is not None
        assert Event.model_validate_json(entry.value).reason == "ImageReady"
        transaction = objects.transaction()
        transaction.release(key)
        await transaction.commit()
        assert await objects.owner(key) is None

    _run(scenario)


def test_watched_changes_are_decoded():
    async def scenario(objects: Objects) -> None:
        image = _image()
        await _create(objects, image)
        read = await objects.require(Image, "default", "debian-12")
        transaction = objects.transaction()
        transaction.update(read.changed(labels={"a": "b"}))
        await transaction.commit()
        transaction = objects.transaction()
        transaction.delete(read.changed(revision=2))
        await transaction.commit()
        seen = []
        async with aclosing(objects.watch(Image, 0)) as changes:
            async for change in changes:
                seen.append(change)
                if change.value is None:
                    break
        assert [(c.revision, c.uid) for c in seen] == [(1, image.uid), (2, image.uid), (3, image.uid)]
        assert seen[0].value == image.changed(revision=1)
        assert seen[0].previous is None
        assert seen[1].value is not None
        assert (seen[1].value.revision, seen[1].value.labels) == (2, {"a": "b"})
        assert seen[2].previous is not None
        assert seen[2].previous.labels == {"a": "b"}

    _run(scenario)
