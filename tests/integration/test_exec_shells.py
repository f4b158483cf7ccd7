"""The shell text that exec puts around a command in a guest, under the shells that guests have as /bin/sh."""

import secrets
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from corral.hypervisor.libvirt.guest_exec import _STOP, _STREAMED

LIMIT_BLOCKS = 16
LIMIT = LIMIT_BLOCKS * 512
SHELLS = {"dash": ("dash",), "busybox": ("busybox", "sh"), "bash": ("bash", "--posix")}


class Ran:
    """How a command ended under such a shell, as an agent that captures its streams sees it."""

    def __init__(self, shell: Sequence[str], argv: Sequence[str], stdin: bytes = b"") -> None:
        self.secret = f"corral-exec.{secrets.token_hex(16)}"
        whole = [*shell, "-c", _STREAMED, "corral-exec", self.secret, str(LIMIT_BLOCKS), *argv]
        done = subprocess.run(whole, input=stdin, capture_output=True, timeout=30, check=False)
        self.status, self.out = done.returncode, done.stdout
        self.err = done.stderr.removesuffix(self.secret.encode())
        self.cut = len(self.err) < len(done.stderr)

    def left(self) -> list[Path]:
        return [place for place in (Path("/run") / self.secret, Path("/tmp") / self.secret) if place.exists()]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Sequence[str]:
    return SHELLS[request.param]


def test_it_ends_as_the_program_does(shell: Sequence[str]) -> None:
    ran = Ran(shell, ["sh", "-c", "echo out; echo err >&2; exit 137"])
    assert (ran.status, ran.out, ran.err, ran.cut) == (137, b"out\n", b"err\n", False)
    assert Ran(shell, ["sh", "-c", "kill -9 $$"]).status == -9
    ran = Ran(shell, ["no-such-program"])
    assert (ran.status, b"no-such-program" in ran.err) == (127, True)
    assert Ran(shell, ["/etc/passwd"]).status == 126
    # The files go a moment after the streams.
    deadline = time.monotonic() + 10
    while ran.left():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_arguments_and_input_are_not_touched(shell: Sequence[str]) -> None:
    words = ["a b", "$HOME", "`id`", "'", '"', "", "*", "-n", "é\n"]
    assert Ran(shell, ["printf", "%s|", *words]).out == b"".join(f"{word}|".encode() for word in words)
    assert Ran(shell, ["cat"], b"x\0y\xff" * 1000).out == b"x\0y\xff" * 1000
    assert Ran(shell, ["true"], b"x" * 200_000).status == 0


def test_a_flood_stays_within_its_bound_and_is_said(shell: Sequence[str]) -> None:
    ran = Ran(shell, ["sh", "-c", "head -c 30000000 /dev/zero; echo done >&2; exit 3"])
    assert (ran.status, ran.out, ran.err, ran.cut) == (3, bytes(LIMIT), b"done\n", True)
    ran = Ran(shell, ["sh", "-c", "head -c 30000000 /dev/zero >&2"])
    assert (ran.status, ran.err, ran.cut) == (0, bytes(LIMIT), True)
    ran = Ran(shell, ["head", "-c", str(LIMIT), "/dev/zero"])
    assert (len(ran.out), ran.cut) == (LIMIT, False)


def test_it_waits_for_whoever_holds_the_streams(shell: Sequence[str]) -> None:
    assert Ran(shell, ["sh", "-c", "(sleep 0.3; echo late) & echo early"]).out == b"early\nlate\n"


def test_the_program_sees_nothing_of_it(shell: Sequence[str]) -> None:
    """No other descriptors, no ignored signals, a session of its own."""
    look = "for n in 3 4 5 6; do test ! -e /proc/$$/fd/$n || echo open $n; done; cut -d' ' -f 1,5,6 /proc/$$/stat"
    seen = Ran(shell, ["sh", "-c", f"{look}; grep SigIgn /proc/$$/status"])
    numbers, ignored = seen.out.decode().splitlines()
    assert len(set(numbers.split())) == 1  # its own number, its group's and its session's
    assert int(ignored.split()[1], 16) & (1 << 24) == 0  # SIGXFSZ, that cat ignores


def test_what_it_has_started_is_stopped_with_it(shell: Sequence[str]) -> None:
    """Also what does not heed SIGTERM."""
    secret = f"corral-exec.{secrets.token_hex(16)}"
    job = "trap '' TERM; sleep 77777 & echo $!; wait; sleep 77777"
    argv = [*shell, "-c", _STREAMED, "corral-exec", secret, str(LIMIT_BLOCKS), "sh", "-c", job]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        out = Path("/run") / secret / "out"
        deadline = time.monotonic() + 20
        while not (out.is_file() and out.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child = int(out.read_text())
        subprocess.run([*shell, "-c", _STOP, "corral-stop", str(running.pid)], timeout=30, check=False)
        assert running.wait(20) == -9
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline + 30
        time.sleep(0.02)


def test_without_room_nothing_is_run(shell: Sequence[str], tmp_path: Path) -> None:
    """Neither /run nor /tmp can be written: it says its secret, which is how the daemon knows."""
    ran = tmp_path / "ran"
    secret, place = "corral-exec.0", tmp_path / "nowhere"
    text = _STREAMED.replace('"/run/$t" "/tmp/$t"', f'"{place}/$t"')
    assert text != _STREAMED
    argv = [*shell, "-c", text, "corral-exec", secret, "2", "touch", str(ran)]
    done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    assert done.stdout == secret.encode()
    assert not ran.exists()
