"""One daemon on real libvirt for the whole session, the micro guest in it, and the Debian image from a cache."""

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from walk import PATIENCE, Walk, make_walk

from corral.images.library import DirLibrary
from corral.images.recipes import recipe_version
from corral.model.image import ImageFacts, ImageSource, ImageSpec

CACHE = Path(os.environ.get("CORRAL_TEST_CACHE", "/var/cache/corral-test"))
KEPT_S = 86400.0
LOG_TAIL_CHARS = 6000


@pytest.fixture(scope="session")
def walk() -> Iterator[Walk]:
    """The command line of a running daemon with the image `micro`; it listens on TLS too."""
    made = make_walk()
    certificate, key = made.home / "tls.crt", made.home / "tls.key"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *subject,
            *("-days", "2", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    # The daemon's settings come from its starter's environment; others on this machine may hold much of its memory.
    made.environment.update(
        CORRAL_LISTEN=f"127.0.0.1:{port}",
        CORRAL_TLS_CERT=str(certificate),
        CORRAL_TLS_KEY=str(key),
    )
    try:
        made("daemon", "start").ok()
        made("image", "build", "micro").ok()
        yield made
    finally:
        made.clear()


@pytest.fixture(scope="session")
def made_vm(walk: Walk) -> str:
    name = walk.name("a")
    walk("create", "--name", name, "--image", "micro", "--memory", "128").ok()
    return name


@pytest.fixture
def vm(walk: Walk, made_vm: str) -> str:
    """The name of a micro guest that runs, with its agent, whatever the test before did with it."""
    found = walk.info(made_vm)
    state = found["status"]["state"]
    if state == "running" and found["spec"]["power"] == "off":  # a test ended while it was going down
        walk("destroy", made_vm).ok()
        state = "shut off"
    if state == "paused":
        walk("resume", made_vm).ok()
    elif state != "running":
        walk("start", made_vm).ok()
    walk("wait", made_vm, "--for", "agent", "--timeout", PATIENCE).ok()
    return made_vm


@pytest.fixture(scope="session")
def library() -> DirLibrary:
    CACHE.mkdir(parents=True, exist_ok=True)
    return DirLibrary(CACHE / "images")


@pytest.fixture(scope="session")
def debian(library: DirLibrary) -> ImageFacts:
    return _cached(library, "debian-12")


def _cached(library: DirLibrary, name: str) -> ImageFacts:
    """An image from the cache, or built into it; a lock lets one builder at a time through."""

    async def silent(_phase: str, _part: float | None) -> None:
        return None

    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for found in asyncio.run(library.found()):
            if found.name != name:
                continue
            disk = library.files(found.facts).disk
            young = disk is not None and time.time() - disk.stat().st_mtime < KEPT_S
            if young and found.facts.recipe == recipe_version("debian"):
                return found.facts
            asyncio.run(library.remove(found.facts.digest))
        spec = ImageSpec(catalogue=name, source=ImageSource.BUILD)
        return asyncio.run(library.make(name, spec, silent))


@pytest.fixture(scope="session")
def debian_image(walk: Walk, library: DirLibrary) -> str:
    """The name of the Debian image in the daemon."""
    return _put(walk, library, "debian-12")


@pytest.fixture(scope="session")
def debian_13_image(walk: Walk, library: DirLibrary) -> str:
    return _put(walk, library, "debian-13")


def _put(walk: Walk, library: DirLibrary, name: str) -> str:
    """An image's files are put into the daemon's directory, and found as after a lost database."""
    digest = _cached(library, name).digest
    shutil.copytree(CACHE / "images" / digest, walk.state_dir / "images" / digest, copy_function=_link_or_copy)
    walk("recover").ok()
    assert name in walk("image", "list", "-o", "name").ok().split()
    return name


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the daemon and the guests said."""
    report = yield
    walk = getattr(item, "funcargs", {}).get("walk")
    if report.failed and isinstance(walk, Walk):
        logs = [walk.state_dir / "log/daemon.log", *sorted((walk.state_dir / "consoles").glob("*.log"))]
        for log in logs:
            if log.is_file():
                report.sections.append((str(log), log.read_text(errors="replace")[-LOG_TAIL_CHARS:]))
    return report
