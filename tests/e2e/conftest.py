"""One daemon on real libvirt for the whole session, the micro guest in it, and images from a cache."""

import socket
import subprocess
from collections.abc import Generator, Iterator

import pytest
from kept import keep_findings, kept_image, kept_library, put_findings, put_image
from walk import PATIENCE, Walk, make_walk

from corral.images.library import DirLibrary
from corral.model.image import ImageFacts

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
    put_findings(made.state_dir)
    try:
        made("daemon", "start").ok()
        keep_findings(made.state_dir)
        _put(made, "micro")
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
    return kept_library("debian-12")


@pytest.fixture(scope="session")
def debian() -> ImageFacts:
    return kept_image("debian-12")


@pytest.fixture(scope="session")
def debian_image(walk: Walk) -> str:
    """The name of the Debian image in the daemon."""
    return _put(walk, "debian-12")


@pytest.fixture(scope="session")
def debian_13_image(walk: Walk) -> str:
    return _put(walk, "debian-13")


def _put(walk: Walk, name: str) -> str:
    put_image(name, walk.state_dir)
    walk("recover").ok()
    assert name in walk("image", "list", "-o", "name").ok().split()
    return name


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
