"""The initramfs archive: the same entries give the same bytes, with the directories that they need."""

import stat

from corral.images import cpio


def names(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Read an archive back, field by field."""
    found, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at += -(-(110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found.append((name, mode, archive[at : at + size]))
        at += -(-size // 4) * 4


def test_round_trip() -> None:
    entries = [
        cpio.regular("usr/bin/tool", b"#!/bin/sh\n", 0o755),
        cpio.symlink("bin", "usr/bin"),
        cpio.character_device("dev/console", 5, 1),
    ]
    archive = cpio.build_archive(entries)
    assert archive == cpio.build_archive(reversed(entries))
    found = {name: (mode, content) for name, mode, content in names(archive)}
    assert set(found) == {"usr", "usr/bin", "usr/bin/tool", "bin", "dev", "dev/console"}
    assert found["usr/bin/tool"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert found["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert stat.S_ISCHR(found["dev/console"][0])
