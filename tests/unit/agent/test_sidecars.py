"""Sidecars follow the store: written before an answer, tried again after a failure, and those of another history left alone."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral.agent.cache import Cache
from corral.agent.sidecars import SidecarKeeper
from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.identity import Project
from corral.model.security_group import SecurityGroup, SecurityGroupSpec
from corral.names import new_uid
from corral.storage.sidecars import Sidecar, Sidecars, document_of
from corral.store.memory import MemoryStore
from corral.store.objects import Objects

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Faulty(Sidecars):
    """Fails before, or after, each of its first effects."""

    def __init__(self, state_dir: Path, failing: int = 0, *, after: bool = False) -> None:
        super().__init__(state_dir)
        self.failing, self.after, self.effects = failing, after, 0

    def write(self, sidecars: Iterable[Sidecar]) -> None:
        self._effect(lambda: super(Faulty, self).write(sidecars))

    def remove(self, which: Iterable[tuple[str, str]]) -> None:
        self._effect(lambda: super(Faulty, self).remove(which))

    def _effect(self, do: object) -> None:
        assert callable(do)
        self.effects += 1
        if self.effects <= self.failing and not self.after:
            raise CorralError("disk-full", "write", "there is no space")
        do()
        if self.effects <= self.failing:
            raise CorralError("storage-error", "write", "it may have happened")


def group(name: str, description: str = "") -> SecurityGroup:
    return SecurityGroup(name=name, uid=new_uid(), created_at=NOW, spec=SecurityGroupSpec(description=description))


async def keeper_of(sidecars: Sidecars, project: Project) -> tuple[SidecarKeeper, Objects]:
    objects = Objects(MemoryStore())
    transaction = objects.transaction()
    transaction.create(project)
    await transaction.commit()
    cache = Cache(objects, lambda _kind, _uid: None)
    await cache.load()
    return SidecarKeeper(cache, sidecars), objects


async def put(keeper: SidecarKeeper, objects: Objects, value: SecurityGroup) -> SecurityGroup:
    transaction = objects.transaction()
    transaction.update(value) if value.revision else transaction.create(value)
    written = value.model_copy(update={"revision": (await transaction.commit()).revision})
    keeper.cache.put(written)
    return written


def held(sidecars: Sidecars) -> dict[str, str]:
    return {one.uid: one.document for one in sidecars.found()}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_is_said_and_made_good(tmp_path: Path, failing: int, after: bool) -> None:
    async def run() -> None:
        project = Project(name=DEFAULT_PROJECT, uid=new_uid(), created_at=NOW)
        sidecars = Faulty(tmp_path, failing, after=after)
        keeper, objects = await keeper_of(sidecars, project)
        web = await put(keeper, objects, group("web"))
        for _ in range(failing):
            with pytest.raises(CorralError):
                await keeper.sync()
        await keeper.sync()
        assert held(sidecars) == {web.uid: document_of(web)}
        effects = sidecars.effects
        await keeper.sync()
        assert sidecars.effects == effects, "what is there costs nothing"
        changed = web.spec.model_copy(update={"description": "for all"})
        web = await put(keeper, objects, web.model_copy(update={"spec": changed}))
        await keeper.sync()
        assert held(sidecars) == {web.uid: document_of(web)}
        sidecars.failing = sidecars.effects + failing
        keeper.cache.forget(SecurityGroup, web.uid)
        for _ in range(failing):
            with pytest.raises(CorralError):
                await keeper.sync()
        await keeper.sync()
        assert held(sidecars) == {}

    asyncio.run(run())


def test_what_a_killed_daemon_left_is_put_right_and_another_history_stays(tmp_path: Path) -> None:
    async def run() -> None:
        project = Project(name=DEFAULT_PROJECT, uid=new_uid(), created_at=NOW)
        sidecars, stale, lost, web = Sidecars(tmp_path), group("stale"), group("lost"), group("web")
        for one, history in ((stale, project.uid), (web, project.uid), (lost, "an older one")):
            sidecars.write((Sidecar(one.PLURAL, one.uid, history, document_of(one)),))
        keeper, objects = await keeper_of(sidecars, project)
        web = await put(keeper, objects, web.model_copy(update={"labels": {"a": "b"}}))
        await keeper.sync()
        assert held(sidecars) == {web.uid: document_of(web), lost.uid: document_of(lost)}

    asyncio.run(run())
