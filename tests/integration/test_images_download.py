"""Downloads against a server of our own: resumed, checked, bounded, and clear about what went wrong."""

import asyncio
import hashlib
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.images.base import CatalogueEntry
from corral.images.download import Download, fetch
from corral.images.library import DirLibrary
from corral.model.image import ImageSource, ImageSpec

CONTENT = bytes(range(256)) * 8192  # 2 MiB


@dataclass
class Vendor:
    """What the server offers and how it misbehaves; and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    hang_after: int | None = None
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""


def handler_of(vendor: Vendor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return None

        def do_GET(self) -> None:
            if self.path in vendor.redirects:
                self.send_response(302)
                self.send_header("Location", vendor.redirects[self.path])
                self.end_headers()
                return
            if self.path not in vendor.files:
                self.send_error(404)
                return
            self._send(vendor.files[self.path])

        def _send(self, content: bytes) -> None:
            start = 0
            if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(match[1])
                vendor.ranges.append(self.headers["Range"])
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            if self.path.endswith(".qcow2") and vendor.cut_after is not None:
                self.wfile.write(body[: vendor.cut_after])
                return
            if self.path.endswith(".qcow2") and vendor.hang_after is not None:
                self.wfile.write(body[: vendor.hang_after])
                self.wfile.flush()
                vendor.released.wait(30)
                return
            self.wfile.write(body)

    return Handler


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    state = Vendor()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    state.files["/image.qcow2"] = CONTENT
    state.files["/SHA256SUMS"] = f"{hashlib.sha256(CONTENT).hexdigest()}  image.qcow2\n".encode()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield state
    state.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def wanted(vendor: Vendor, tmp_path: Path, **changes: object) -> Download:
    values = {
        "url": f"{vendor.url}/image.qcow2",
        "checksum_url": f"{vendor.url}/SHA256SUMS",
        "target": tmp_path / "disk",
        "stall_timeout_s": 5.0,
    }
    return Download(**{**values, **changes})


def run(download: Download) -> list[tuple[str, float | None]]:
    seen: list[tuple[str, float | None]] = []

    async def progress(phase: str, part: float | None) -> None:
        seen.append((phase, part))

    asyncio.run(fetch(download, progress))
    return seen


def failing(download: Download) -> CorralError:
    with pytest.raises(CorralError) as caught:
        run(download)
    assert not download.target.exists()
    return caught.value


def test_whole(vendor: Vendor, tmp_path: Path) -> None:
    download = wanted(vendor, tmp_path)
    phases = {phase for phase, _ in run(download)}
    assert download.target.read_bytes() == CONTENT
    assert phases == {"reading the vendor's checksums", "downloading", "checking the checksum"}


def test_goes_on_where_it_was_cut(vendor: Vendor, tmp_path: Path) -> None:
    download = wanted(vendor, tmp_path)
    vendor.cut_after = 300_000
    error = failing(download)
    assert error.code == "download-failed"
    assert "300000 of 2097152" in error.reason
    vendor.cut_after = None
    run(download)
    assert vendor.ranges == ["bytes=300000-"]
    assert download.target.read_bytes() == CONTENT


def test_all_there_but_not_yet_named(vendor: Vendor, tmp_path: Path) -> None:
    (tmp_path / "disk.part").write_bytes(CONTENT)
    download = wanted(vendor, tmp_path)
    run(download)
    assert download.target.read_bytes() == CONTENT


def test_wrong_checksum_is_thrown_away(vendor: Vendor, tmp_path: Path) -> None:
    vendor.files["/SHA256SUMS"] = f"{'0' * 64}  image.qcow2\n".encode()
    assert failing(wanted(vendor, tmp_path)).code == "checksum-mismatch"
    assert list(tmp_path.iterdir()) == []


def test_a_stale_part_is_thrown_away_and_the_next_try_succeeds(vendor: Vendor, tmp_path: Path) -> None:
    (tmp_path / "disk.part").write_bytes(b"of an older image")
    assert failing(wanted(vendor, tmp_path)).code == "checksum-mismatch"
    run(wanted(vendor, tmp_path))


@pytest.mark.parametrize("missing", ["/image.qcow2", "/SHA256SUMS"])
def test_not_found(vendor: Vendor, tmp_path: Path, missing: str) -> None:
    del vendor.files[missing]
    error = failing(wanted(vendor, tmp_path))
    assert error.code == "download-failed"
    assert "404" in error.reason


def test_not_named_in_the_checksum_file(vendor: Vendor, tmp_path: Path) -> None:
    vendor.files["/SHA256SUMS"] = f"{'0' * 64}  other.qcow2\n".encode()
    assert failing(wanted(vendor, tmp_path)).code == "download-failed"


def test_silence_ends_the_transfer(vendor: Vendor, tmp_path: Path) -> None:
    vendor.hang_after = 100_000
    error = failing(wanted(vendor, tmp_path, stall_timeout_s=0.3))
    assert error.code == "download-failed"
    assert "timed out" in error.reason


def test_larger_than_allowed(vendor: Vendor, tmp_path: Path) -> None:
    error = failing(wanted(vendor, tmp_path, max_bytes=1000))
    assert error.code == "download-failed"
    assert "at most 1000" in error.reason


def test_redirects(vendor: Vendor, tmp_path: Path) -> None:
    vendor.redirects = {"/latest/image.qcow2": "/image.qcow2", "/loop/image.qcow2": "/loop/image.qcow2"}
    run(wanted(vendor, tmp_path, url=f"{vendor.url}/latest/image.qcow2"))
    (tmp_path / "disk").unlink()
    assert "redirects" in failing(wanted(vendor, tmp_path, url=f"{vendor.url}/loop/image.qcow2")).reason


@pytest.mark.parametrize(
    "url", ["http://vendor.example/i.qcow2", "file:///etc/passwd", "ftp://vendor.example/i.qcow2", "/etc/passwd"]
)
def test_only_https(vendor: Vendor, tmp_path: Path, url: str) -> None:
    vendor.files["/SHA256SUMS"] = f"{'0' * 64}  {url.rpartition('/')[2]}\n".encode()
    assert "only https" in failing(wanted(vendor, tmp_path, url=url)).reason
    vendor.redirects = {"/image.qcow2": url} if "//" in url else {"/image.qcow2": "http://vendor.example/x"}
    vendor.files["/SHA256SUMS"] = f"{'0' * 64}  image.qcow2\n".encode()
    assert "only https" in failing(wanted(vendor, tmp_path)).reason


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    error = failing(Download(f"{url}/i.qcow2", f"{url}/SHA256SUMS", tmp_path / "disk"))
    assert error.code == "download-failed"
    assert "build the image" in error.hint


def test_cancelling_keeps_the_part(vendor: Vendor, tmp_path: Path) -> None:
    vendor.hang_after = 600_000
    download = wanted(vendor, tmp_path, stall_timeout_s=2.0)

    async def cancel() -> None:
        enough = asyncio.Event()

        async def progress(_phase: str, part: float | None) -> None:
            if part:
                enough.set()

        task = asyncio.create_task(fetch(download, progress))
        async with asyncio.timeout(20):
            await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert (tmp_path / "disk.part").stat().st_size > 0
    vendor.hang_after = None
    run(download)


def test_into_the_library(vendor: Vendor, tmp_path: Path) -> None:
    disk = tmp_path / "made.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"], check=True)
    content = disk.read_bytes()
    vendor.files["/image.qcow2"] = content
    vendor.files["/CHECKSUM"] = f"SHA512 (image.qcow2) = {hashlib.sha512(content).hexdigest()}\n".encode()
    entry = CatalogueEntry(
        *("vendor-1", "vendoros1", "Vendor 1", "", ""),
        *(f"{vendor.url}/image.qcow2", f"{vendor.url}/CHECKSUM", "cloud", 256),
    )
    library = DirLibrary(tmp_path / "images", (entry,))
    spec = ImageSpec(catalogue="vendor-1", source=ImageSource.DOWNLOAD)

    async def progress(_phase: str, _part: float | None) -> None:
        return None

    vendor.cut_after = 1000
    with pytest.raises(CorralError, match="download-failed"):
        asyncio.run(library.make("vendor-1", spec, progress))
    assert asyncio.run(library.found()) == ()
    vendor.cut_after = None
    facts = asyncio.run(library.make("vendor-1", spec, progress))
    assert vendor.ranges == ["bytes=1000-"]
    assert (facts.os_id, facts.default_user, facts.memory_min_mib) == ("vendoros1", "cloud", 256)
    assert [path.name for path in (tmp_path / "images").iterdir()] == [facts.digest]
