"""What lies on disk of a frozen guest: libvirt's file under another document, memory with its digest, the renamed state."""

import os
import struct
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.hypervisor.libvirt import fork_memory, holder_process
from corral.hypervisor.libvirt.saved_image import MAGIC, copy_saved_image, read_saved_image

DOCUMENT = "<domain><name>web</name></domain>"
COOKIE = b"<cookie/>"
STREAM = os.urandom(5000)
MIB = 1 << 20


def saved(path: Path, *, length: int = 4096, version: int = 2, compression: int = 0) -> Path:
    text = DOCUMENT.encode() + b"\0"
    part = (text + COOKIE + b"\0").ljust(length, b"\0")
    header = MAGIC + struct.pack("<5I", version, length, 1, compression, len(text)) + bytes(14 * 4)
    path.write_bytes(header + part + STREAM)
    return path


def test_the_same_guest_under_another_document(tmp_path: Path) -> None:
    source, copy = saved(tmp_path / "a"), tmp_path / "b"
    before = source.read_bytes()
    other = "<domain><name>a longer name than before</name></domain>"
    copy_saved_image(source, copy, other)
    found = read_saved_image(copy)
    assert (found.document, found.cookie, found.was_running) == (other, COOKIE, 1)
    assert copy.read_bytes().endswith(STREAM)
    assert copy.stat().st_size == source.stat().st_size
    assert copy.stat().st_mode & 0o777 == 0o600
    assert source.read_bytes() == before


def test_what_is_none_or_has_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorralError, match="no room"):
        copy_saved_image(saved(tmp_path / "a", length=64), tmp_path / "b", "<domain>" + "x" * 100 + "</domain>")
    for name, path in (
        ("compressed", saved(tmp_path / "c", compression=1)),
        ("of another version", saved(tmp_path / "d", version=3)),
    ):
        with pytest.raises(CorralError) as caught:
            read_saved_image(path)
        assert caught.value.code == "unsupported", name
    (tmp_path / "e").write_bytes(b"short")
    with pytest.raises(CorralError, match="no guest that libvirt saved"):
        read_saved_image(tmp_path / "e")


def test_memory_is_copied_without_its_zeros_and_the_digest_tells_every_bit(tmp_path: Path) -> None:
    source = tmp_path / "memory"
    with source.open("wb") as stream:
        stream.truncate(8 * MIB)
        for at in (0, 3 * MIB + 5, 8 * MIB - 1):
            stream.seek(at)
            stream.write(b"x")

    def copied(name: str) -> str:
        with source.open("rb") as stream, (tmp_path / name).open("w+b") as target:
            target.truncate(8 * MIB)
            return holder_process.copy_memory(stream.fileno(), target.fileno())

    first = copied("one")
    assert (tmp_path / "one").read_bytes() == source.read_bytes()
    assert (tmp_path / "one").stat().st_blocks * 512 <= 3 * holder_process.BLOCK_BYTES
    assert copied("two") == first
    with source.open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"\1")
    assert copied("three") != first


def block(name: bytes, size: int) -> bytes:
    return bytes([len(name)]) + name + struct.pack(">Q", size)


def test_the_memory_is_renamed_in_the_state() -> None:
    state = b"before" + block(b"pc.ram", 128 * MIB) + b"after"
    renamed = fork_memory.rename_memory(state, 128 * MIB, "corral0")
    assert renamed == b"before" + block(b"corral0", 128 * MIB) + b"after"
    assert fork_memory.rename_memory(renamed, 128 * MIB, "corral0") == renamed


@pytest.mark.parametrize("times", [0, 2])
def test_a_state_that_names_it_otherwise_is_refused(times: int) -> None:
    with pytest.raises(CorralError, match=f"stands {times} times"):
        fork_memory.rename_memory(block(b"pc.ram", 128 * MIB) * times, 128 * MIB, "corral0")
