"""`corral cp`: what is remote, and archives: what a hostile guest packs stays in its place."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from corral.cli.archive import packed, unpack
from corral.cli.cp import Remote, parse_remote
from corral.errors import CorralError


def test_what_is_remote() -> None:
    assert parse_remote("web:/etc/hosts") == Remote("web", "/etc/hosts")
    assert parse_remote("web:/a:b") == Remote("web", "/a:b")
    for local in ("hosts", "./web:/etc/hosts", "/tmp/a:b", "-", ""):
        assert parse_remote(local) is None
    with pytest.raises(click.UsageError):
        parse_remote("web:hosts")


def _archive(*members: tarfile.TarInfo) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return stream


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "", size: int = 0, mode: int = 0o644
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode = kind, linkname, size, mode
    return member


def test_a_directory_comes_back_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(b"content")
    (source / "deep" / "file").chmod(0o750)
    (source / "link").symlink_to("deep/file")
    (source / "same").hardlink_to(source / "deep" / "file")
    with packed(source) as (stream, left_out):
        assert left_out == []
        assert unpack(stream, tmp_path / "target") == []
    target = tmp_path / "target"
    assert (target / "deep" / "file").read_bytes() == b"content" == (target / "same").read_bytes()
    assert (target / "deep" / "file").stat().st_mode & 0o7777 == 0o750
    assert (target / "link").readlink() == Path("deep/file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


@pytest.mark.parametrize(
    "members",
    [
        [_member("../out")],
        [_member("/etc/out")],
        [_member("a/../../out")],
        [_member("hard", tarfile.LNKTYPE, "../../etc/passwd")],
        [_member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [_member("a"), _member("a")],
    ],
)
def test_nothing_leaves_its_place(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    with pytest.raises(CorralError):
        unpack(_archive(*members), tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    members = [_member("way", tarfile.SYMTYPE, str(outside)), _member("way/file", size=3)]
    unpack(_archive(*members), tmp_path / "target")
    assert list(outside.iterdir()) == []
    assert (tmp_path / "target" / "way" / "file").read_bytes() == bytes(3)


def test_devices_are_left_out_and_setuid_is_dropped(tmp_path: Path) -> None:
    left_out = unpack(_archive(_member("null", tarfile.CHRTYPE), _member("su", mode=0o4755)), tmp_path / "target")
    assert left_out == ["null"]
    assert (tmp_path / "target" / "su").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("cut", [lambda content: content[:700], lambda _content: b"no archive at all" * 99])
def test_a_broken_archive_leaves_nothing(tmp_path: Path, cut: Callable[[bytes], bytes]) -> None:
    whole = _archive(_member("a", size=600)).getvalue()
    with pytest.raises(CorralError):
        unpack(io.BytesIO(cut(whole)), tmp_path / "target")
    assert list(tmp_path.iterdir()) == []
