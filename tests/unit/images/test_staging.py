"""Files that were handed over: whole or not there, bounded, and gone after a day."""

import asyncio
import os
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.images import staging
from corral.images.installer import _append, grub_words
from corral.images.staging import Staging


def run(directory: Path, *pieces: bytes, commit: bool = True) -> str:
    async def whole() -> str:
        staged = Staging(directory).open()
        try:
            for piece in pieces:
                await staged.write(piece)
            return await staged.commit() if commit else ""
        finally:
            await staged.close()

    return asyncio.run(whole())


def test_what_is_committed_is_there_under_its_token(tmp_path: Path) -> None:
    path = Staging(tmp_path).path(run(tmp_path, b"ab", b"c"))
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"abc", 0o600)


def test_what_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    run(tmp_path, b"ab", commit=False)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CorralError, match="empty"):
        run(tmp_path)


@pytest.mark.parametrize("token", ["", "0" * 32, "../../../../etc/passwd", "x" * 32])
def test_other_tokens_lead_nowhere(tmp_path: Path, token: str) -> None:
    with pytest.raises(CorralError) as caught:
        Staging(tmp_path).path(token)
    assert caught.value.code == "invalid-argument"


def test_an_upload_has_a_bound_and_leaves_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "STAGED_MAX_BYTES", 3)
    with pytest.raises(CorralError) as caught:
        run(tmp_path, b"ab", b"cd")
    assert caught.value.code == "body-too-large"
    monkeypatch.setattr(staging, "KEPT_FREE_BYTES", 2**62)
    with pytest.raises(CorralError) as caught:
        run(tmp_path, b"a")
    assert caught.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_used_goes_after_a_day(tmp_path: Path) -> None:
    old, new = Staging(tmp_path).path(run(tmp_path, b"a")), Staging(tmp_path).path(run(tmp_path, b"b"))
    os.utime(old, (0, 0))
    assert Staging(tmp_path).clean() == 1
    assert (old.exists(), new.exists()) == (False, True)


def test_a_second_archive_begins_on_a_boundary_of_four_bytes(tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(b"12345")
    (tmp_path / "more").write_bytes(b"070701")
    _append(tmp_path / "initrd", tmp_path / "more")
    assert (tmp_path / "initrd").read_bytes() == b"12345" + bytes(3 + 4) + b"070701"


def test_kernel_arguments_reach_the_kernel_as_they_are() -> None:
    assert grub_words("console=ttyS0,115200  a=$x quiet;reboot") == "'console=ttyS0,115200' 'a=$x' 'quiet;reboot'"
    for bad in ("a='b'", "a\nreboot"):
        with pytest.raises(CorralError):
            grub_words(bad)
