"""A Debian image's build killed in the middle: no mount, no process and no file of it is left, and the next one works."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corral.images.library import DirLibrary, has_mounts
from corral.model.image import ImageSource, ImageSpec

DEADLINE_S = 240.0
DEATH_S = 20.0
PTMX = Path("/dev/ptmx")
SPEC = ImageSpec(catalogue="debian-12", source=ImageSource.BUILD)
# What the daemon does, in a process that can be killed.
BUILDER = """
import asyncio, sys
from pathlib import Path
from corral.errors import CorralError
from corral.images.library import DirLibrary
from corral.model.image import ImageSpec

async def silent(phase, part): return None

try:
    asyncio.run(DirLibrary(Path(sys.argv[1])).make("debian-12", ImageSpec.model_validate_json(sys.argv[2]), silent))
except CorralError as error:
    sys.exit(error.code)
"""

pytestmark = pytest.mark.timeout(900)


def until(what: Callable[[], object], deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def processes(place: Path) -> dict[int, str]:
    """The command lines of all processes that have a file system mounted, or their root, below `place`."""
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                mounts, root = (directory / "mountinfo").read_text(), os.readlink(directory / "root")
                if f" {place}/" in mounts or root.startswith(f"{place}/"):
                    found[int(directory.name)] = (directory / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it has ended
    return found


def in_chroot(place: Path) -> bool:
    """The build has mounted its file systems, and dpkg works on the tree."""
    return any(line.startswith("dpkg ") for line in processes(place).values())


def ptmx() -> tuple[int, int, int]:
    found = PTMX.lstat()
    assert stat.S_ISCHR(found.st_mode)
    return found.st_ino, found.st_rdev, found.st_mode


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def builder(images: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A build that has come to the chroot."""
    images.parent.chmod(0o711)
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(images), SPEC.model_dump_json()], stderr=subprocess.PIPE
    )
    with process:
        try:
            until(lambda: in_chroot(images) or process.poll() is not None, DEADLINE_S)
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            yield process
        finally:
            process.kill()


async def silent(_phase: str, _part: float | None) -> None:
    return None


def test_the_builder_killed_leaves_nothing(builder: "subprocess.Popen[bytes]", images: Path) -> None:
    before = ptmx()
    assert not has_mounts(images)  # the build alone sees them
    builder.kill()
    builder.wait()
    until(lambda: not processes(images), DEATH_S)
    assert ptmx() == before
    library = DirLibrary(images)
    assert asyncio.run(library.clean()) == 1
    assert list(images.iterdir()) == []


@pytest.mark.soak
def test_the_build_killed_is_told_and_the_next_one_works(builder: "subprocess.Popen[bytes]", images: Path) -> None:
    before = ptmx()
    victim = next(pid for pid, line in processes(images).items() if line.startswith("/usr/bin/perl"))
    os.kill(victim, signal.SIGKILL)
    _, said = builder.communicate(timeout=DEATH_S)
    assert (builder.returncode, said.decode().strip()) == (1, "image-build-failed")
    assert processes(images) == {}
    assert ptmx() == before
    assert list(images.iterdir()) == []
    facts = asyncio.run(DirLibrary(images).make("debian-12", SPEC, silent))
    assert facts.uefi
    assert [path.name for path in images.iterdir()] == [facts.digest]


def test_what_is_mounted_is_not_descended_into(tmp_path: Path) -> None:
    """Left by who knows whom: the scratch directory stays, and with it what is mounted there."""
    images, outside = tmp_path / "images", tmp_path / "outside"
    library = DirLibrary(images)
    place = images / ".partial-x" / "work"
    place.mkdir(parents=True)
    outside.mkdir()
    (outside / "precious").write_text("x")
    subprocess.run(["mount", "--bind", str(outside), str(place)], check=True)
    try:
        assert asyncio.run(library.clean()) == 0
        assert (outside / "precious").exists()
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert asyncio.run(library.clean()) == 1
    assert (outside / "precious").exists()
    assert not (images / ".partial-x").exists()
