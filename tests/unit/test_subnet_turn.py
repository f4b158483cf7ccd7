"""One daemon at a time chooses a subnet."""

import asyncio
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.network.subnet_turn import subnet_turn


def test_one_after_the_other(tmp_path: Path) -> None:
    lock, inside, most = tmp_path / "lock", 0, 0

    async def choose() -> None:
        nonlocal inside, most
        async with subnet_turn(lock):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async def main() -> None:
        await asyncio.gather(*(choose() for _ in range(5)))

    asyncio.run(main())
    assert most == 1


def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        async with subnet_turn(tmp_path / "lock"):
            with pytest.raises(CorralError, match="wrong-state"):
                async with subnet_turn(tmp_path / "lock", wait_s=0):
                    pytest.fail("it was let in")

    asyncio.run(main())


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    async def main() -> None:
        async with subnet_turn(tmp_path / "lock"):
            pytest.fail("it was let in")

    with pytest.raises(CorralError, match="storage-error"):
        asyncio.run(main())
    assert not (tmp_path / "elsewhere").exists()
