"""Vendors' checksum files: each form that a catalogue entry meets, and what is not there."""

import pytest

from corral.errors import CorralError
from corral.images.checksums import Checksum, find_checksum

S256 = "a" * 64
S512 = "b" * 128


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{S512}  disk.qcow2\n{'c' * 128}  other.qcow2\n", Checksum("sha512", S512)),
        (f"{S256} *disk.qcow2\n", Checksum("sha256", S256)),
        (f"{S256}  ./disk.qcow2\n", Checksum("sha256", S256)),
        (f"SHA256 (disk.qcow2) = {S256}\n", Checksum("sha256", S256)),
        (f"# disk.qcow2: 99 bytes\nSHA256 (disk.qcow2) = {S256.upper()}\n", Checksum("sha256", S256)),
        (
            f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSHA256 (disk.qcow2) = {S256}\n-----BEGIN PGP",
            Checksum("sha256", S256),
        ),
        (f"{S512}\n", Checksum("sha512", S512)),
        (f"{S256}  disk.qcow2\n{S512}  disk.qcow2\n", Checksum("sha512", S512)),
    ],
    ids=["gnu", "binary", "dot-slash", "bsd", "commented", "signed", "lone", "strongest"],
)
def test_finds(text: str, expected: Checksum) -> None:
    assert find_checksum(text, "disk.qcow2") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>404</html>",
        f"{S256}  other.qcow2\n",
        f"SHA256 (disk.qcow2) = {'a' * 40}\n",
        f"MD5 (disk.qcow2) = {S256}",
    ],
)
def test_says_that_there_is_none(text: str) -> None:
    with pytest.raises(CorralError) as caught:
        find_checksum(text, "disk.qcow2")
    assert caught.value.code == "download-failed"
