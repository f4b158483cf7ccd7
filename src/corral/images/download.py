"""Streamed downloads: resumed where they stopped, bounded in size and redirects, checked against the vendor's checksum.

HTTPS only, but for loopback addresses. The transfer runs in a thread over `http.client`; cancelling stops it.
"""

import asyncio
import hashlib
import http.client
import ipaddress
import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from corral import files
from corral.errors import CorralError
from corral.images.base import Progress
from corral.images.checksums import Checksum, find_checksum

CHUNK_BYTES: Final = 256 * 1024
REDIRECTS_MAX: Final = 5
CONNECT_TIMEOUT_S: Final = 20.0
# No byte for this long, and the transfer has failed; it can be taken up again.
STALL_TIMEOUT_S: Final = 60.0
IMAGE_MAX_BYTES: Final = 32 * 2**30
CHECKSUM_FILE_MAX_BYTES: Final = 4 * 2**20
PROGRESS_INTERVAL_S: Final = 0.5
_HINT: Final = "check the network and proxy settings, or build the image (debian-12, debian-13) on this machine instead"


@dataclass(frozen=True)
class Download:
    """What is wanted: `target` is the final file; `target.part` holds what has come so far."""

    url: str
    checksum_url: str
    target: Path
    max_bytes: int = IMAGE_MAX_BYTES
    stall_timeout_s: float = STALL_TIMEOUT_S


async def fetch(download: Download, progress: Progress) -> Checksum:
    """Bring `target` and check it. Raises `download-failed`, `checksum-mismatch`, `disk-full`.

    A transfer that broke off goes on where it stopped the next time; one with a wrong checksum is thrown away.
    """
    await progress("reading the vendor's checksums", 0.0)
    transfer = _Transfer(download)
    try:
        text = await asyncio.to_thread(transfer.read_text, download.checksum_url, CHECKSUM_FILE_MAX_BYTES)
        checksum = find_checksum(text, urlsplit(download.url).path.rpartition("/")[2])
        work = asyncio.create_task(asyncio.to_thread(transfer.run))
        while not work.done():
            await asyncio.wait([work], timeout=PROGRESS_INTERVAL_S)
            await progress("downloading", transfer.part_done)
        await work
        await progress("checking the checksum", 1.0)
        await asyncio.to_thread(transfer.finish, checksum)
    finally:
        transfer.stop()
    return checksum


async def fetch_plain(download: Download) -> None:
    """Bring `target` with nothing but TLS to vouch for it: an installer's kernel, out of its publisher's tree. Raises
    `download-failed`; `status` in its context is the server's answer."""
    transfer = _Transfer(download)
    try:
        await asyncio.to_thread(transfer.run)
        await asyncio.to_thread(transfer.accept)
    finally:
        transfer.stop()


class _Transfer:
    """One download in a thread; `stop` ends it at its next chunk."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self._part = download.target.with_name(download.target.name + ".part")
        self._stopped = threading.Event()
        self._done_bytes = 0
        self._total_bytes = 0

    @property
    def part_done(self) -> float | None:
        return self._done_bytes / self._total_bytes if self._total_bytes else None

    def stop(self) -> None:
        self._stopped.set()

    def read_text(self, url: str, max_bytes: int) -> str:
        with _Response(url, self._download.stall_timeout_s) as response:
            content = response.read(max_bytes + 1, self._failing(url))
        if len(content) > max_bytes:
            raise _failed(url, f"larger than {max_bytes} bytes")
        return content.decode("utf-8", errors="replace")

    def run(self) -> None:
        """Append to the part file until the server has no more."""
        url = self._download.url
        try:
            have = self._part.stat().st_size if self._part.exists() else 0
            with _Response(url, self._download.stall_timeout_s, start=have) as response:
                if response.complete:
                    return
                if not response.partial:
                    have = 0
                self._receive(response, have)
        except OSError as error:
            raise files.storage_error(f"write {self._part}", error) from error

    def _receive(self, response: "_Response", have: int) -> None:
        url = self._download.url
        self._done_bytes, self._total_bytes = have, have + response.length if response.length else 0
        if max(self._total_bytes, have) > self._download.max_bytes:
            raise _failed(url, f"the image has {self._total_bytes} bytes, at most {self._download.max_bytes}")
        with self._part.open("ab" if have else "wb") as stream:
            while chunk := response.read(CHUNK_BYTES, self._failing(url)):
                if self._stopped.is_set():
                    raise _failed(url, "stopped")
                stream.write(chunk)
                self._done_bytes += len(chunk)
                if self._done_bytes > self._download.max_bytes:
                    raise _failed(url, f"more than {self._download.max_bytes} bytes came")
        if self._total_bytes and self._done_bytes < self._total_bytes:
            raise _failed(url, f"the connection ended after {self._done_bytes} of {self._total_bytes} bytes")

    def finish(self, checksum: Checksum) -> None:
        """Check the part file and give it its name."""
        digest = file_digest(self._part, checksum.algorithm, self._stopped.is_set)
        if digest != checksum.digest:
            self._part.unlink(missing_ok=True)
            raise CorralError(
                "checksum-mismatch",
                f"download {self._download.url}",
                f"its {checksum.algorithm} is {digest}, the vendor's file says {checksum.digest}",
                "the download was thrown away; try again, and do not use the mirror if this stays so",
            )
        self.accept()

    def accept(self) -> None:
        """Give the part file its name."""
        self._part.rename(self._download.target)

    def _failing(self, url: str) -> Callable[[str], CorralError]:
        return lambda reason: _failed(url, reason)


class _Response:
    """An answer to GET, after redirects. A context manager: leaving it closes the connection."""

    def __init__(self, url: str, timeout_s: float, start: int = 0) -> None:
        self._timeout_s = timeout_s
        self._first_url = url
        self._connection, self._response = self._get(url, start, REDIRECTS_MAX)
        self.partial = self._response.status == http.HTTPStatus.PARTIAL_CONTENT
        # 416 to a request that starts at the end: everything is there.
        self.complete = self._response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start > 0
        self.length = self._response.length or 0

    def __enter__(self) -> "_Response":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def read(self, size: int, failing: Callable[[str], CorralError]) -> bytes:
        try:
            return self._response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise failing(f"the connection broke: {_words(error)}") from error

    def _get(self, url: str, start: int, redirects: int) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection, target = _connect(url, min(self._timeout_s, CONNECT_TIMEOUT_S))
        headers = {"User-Agent": "corral", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            connection.request("GET", target, headers=headers)
            if connection.sock is not None:
                connection.sock.settimeout(self._timeout_s)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _failed(url, _words(error)) from error
        if response.status in (301, 302, 303, 307, 308):
            location = response.getheader("Location", "")
            connection.close()
            if not location or redirects == 0:
                raise _failed(self._first_url, f"more than {REDIRECTS_MAX} redirects, or one to nowhere")
            return self._get(urljoin(url, location), start, redirects - 1)
        if response.status in (200, 206) or (response.status == 416 and start):
            return connection, response
        connection.close()
        raise _failed(url, f"the server answered {response.status} {response.reason}", response.status)


def _connect(url: str, timeout_s: float) -> tuple[http.client.HTTPConnection, str]:
    """A connection, through the machine's proxy if it has one, and what to ask it for."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise _failed(url, "only https is accepted")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    context = ssl.create_default_context()
    proxy = "" if _is_loopback(host) or proxy_bypass(host) else getproxies().get(parts.scheme, "")
    try:
        port = parts.port
        if proxy:
            via = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            tunnel = http.client.HTTPSConnection(via.hostname or "", via.port, timeout=timeout_s, context=context)
            tunnel.set_tunnel(host, port or 443)
            return tunnel, path
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context), path
        return http.client.HTTPConnection(host, port, timeout=timeout_s), path
    except ValueError as error:
        raise _failed(url, f"not a URL: {error}") from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _failed(url: str, reason: str, status: int = 0) -> CorralError:
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # no password, no signed query
    return CorralError("download-failed", f"download {shown}", reason, _HINT, {"status": status} if status else {})


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def file_digest(path: Path, algorithm: str, stopped: Callable[[], bool] = lambda: False) -> str:
    """The file's digest in hex. Raises `operation-cancelled` when `stopped` says so."""
    digest = hashlib.new(algorithm)
    try:
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while chunk := stream.read(CHUNK_BYTES):
                if stopped():
                    raise CorralError("operation-cancelled", f"read {path}", "stopped")
                digest.update(chunk)
    except OSError as error:
        raise files.storage_error(f"read {path}", error) from error
    return digest.hexdigest()
