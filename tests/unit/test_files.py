"""Files are there whole or not at all."""

import os
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.files import (
    check_not_others,
    exclusive_lock,
    read_limited,
    remove_file,
    remove_leftovers,
    replacing,
    why_not_writable,
    write_atomic,
)


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "document"
    write_atomic(path, b"old")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["document"]


def test_what_a_crash_left_is_found(tmp_path: Path) -> None:
    (tmp_path / ".document.0a1b2c3d.tmp").write_bytes(b"half")
    (tmp_path / "document").write_bytes(b"whole")
    assert remove_leftovers(tmp_path) == 1
    assert os.listdir(tmp_path) == ["document"]


def test_mode_is_as_asked(tmp_path: Path) -> None:
    write_atomic(tmp_path / "secret", b"", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_what_is_written_is_nobody_elses_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed holds password hashes, and its directory lets others pass."""
    seen: list[int] = []
    fchmod = os.fchmod

    def look(fd: int, mode: int) -> None:
        seen.extend(path.stat().st_mode & 0o777 for path in tmp_path.glob(".*.tmp"))
        fchmod(fd, mode)

    monkeypatch.setattr(os, "fchmod", look)
    mask = os.umask(0)
    try:
        write_atomic(tmp_path / "seed", b"$6$", 0o644)
    finally:
        os.umask(mask)
    assert seen == [0o600]


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(CorralError) as caught:
        read_limited(tmp_path / "big", 10)
    assert caught.value.code == "invalid-document"


def test_writing_into_a_directory_that_is_not_there_is_coded(tmp_path: Path) -> None:
    with pytest.raises(CorralError) as caught:
        write_atomic(tmp_path / "no" / "document", b"")
    assert caught.value.code == "storage-error"


def test_removing_twice_is_fine(tmp_path: Path) -> None:
    write_atomic(tmp_path / "document", b"")
    remove_file(tmp_path / "document")
    remove_file(tmp_path / "document")


def test_a_lock_has_one_owner(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "lock"):
        with pytest.raises(CorralError) as caught, exclusive_lock(tmp_path / "lock"):
            pass
        assert caught.value.code == "daemon-already-running"
    with exclusive_lock(tmp_path / "lock"):
        pass


def test_a_directory_that_others_may_change_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_not_others(tmp_path, "use it")
    tmp_path.chmod(0o1777)  # as /tmp: nobody touches what is another's
    check_not_others(tmp_path, "use it")
    tmp_path.chmod(0o777)
    with pytest.raises(CorralError) as refused:
        check_not_others(tmp_path, "use it")
    assert refused.value.code == "storage-error"
    tmp_path.chmod(0o711)
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner:
        with pytest.raises(CorralError, match="belongs to uid"):
            check_not_others(tmp_path, "use it")


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path, 1) == ""
    assert "MiB left" in why_not_writable(tmp_path, 2**62)
    assert why_not_writable(tmp_path / "gone", 1).endswith("No such file or directory")
    read_only = next(
        (Path(at) for at in ("/sys/fs/cgroup", "/proc/sys", "/sys") if os.statvfs(at).f_flag & os.ST_RDONLY), None
    )
    if read_only is not None:
        assert why_not_writable(read_only, 0).endswith("is read-only")
