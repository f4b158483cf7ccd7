"""The process that holds a template's memory: let go while nobody uses it, and held again by whoever comes next."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from corral.hypervisor.forking import Template
from corral.hypervisor.libvirt import holder, holder_process
from corral.hypervisor.libvirt.forks import LibvirtForking

SIZE = 4 << 20


@pytest.fixture
def template(tmp_path: Path) -> Template:
    directory = tmp_path / "t"
    directory.mkdir()
    memory = directory / "memory"
    memory.write_bytes(os.urandom(1 << 20) + bytes(SIZE - (1 << 20)))
    descriptor = os.open(memory, os.O_RDONLY)
    digest = holder_process.copy_memory(descriptor, -1)
    os.close(descriptor)
    return Template("uid", directory, tmp_path / "r", digest)


def _lend(template: Template) -> bytes:
    with holder.lent(
        template.directory / "memory", template.digest, template.run_dir, (os.geteuid(), os.getegid())
    ) as place:
        assert place.size_bytes == SIZE
        with Path(place.path).open("rb") as stream:
            return stream.read(1 << 20)


def _is_held(template: Template) -> bool:
    return (template.run_dir / "memory.sock").exists()


def _forking() -> LibvirtForking:
    def nobody(*_arguments: object) -> object:
        raise AssertionError("the hypervisor was asked")

    return LibvirtForking(None, nobody, nobody, nobody, nobody)  # type: ignore[arg-type]


def test_it_is_let_go_and_held_again(template: Template) -> None:
    async def scene() -> None:
        forking, content = _forking(), (template.directory / "memory").read_bytes()[: 1 << 20]
        await forking.rest(template)  # nobody holds it
        for _ in range(3):
            assert await asyncio.to_thread(_lend, template) == content
            assert _is_held(template)
            await forking.rest(template)
            assert not _is_held(template)

    asyncio.run(scene())


def test_what_is_lent_is_not_let_go_and_who_comes_meanwhile_waits(template: Template) -> None:
    """Forks and rests at once: every fork gets the memory."""

    async def scene() -> None:
        forking = _forking()
        async with forking._lent(template):
            await asyncio.to_thread(_lend, template)
            await forking.rest(template)
            assert _is_held(template)

        async def fork() -> None:
            await asyncio.sleep(random.uniform(0, 0.5))
            async with forking._lent(template):
                await asyncio.to_thread(_lend, template)

        async def rest() -> None:
            for _ in range(30):
                await forking.rest(template)
                await asyncio.sleep(0.01)

        await asyncio.gather(rest(), *(fork() for _ in range(20)))
        await forking.rest(template)
        assert not _is_held(template)

    asyncio.run(scene())
