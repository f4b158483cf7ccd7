"""Processes are bounded in time, output and memory, and leave nothing behind."""

import asyncio
import os
import time

import pytest

from corral import proc
from corral.errors import CorralError


def run(*argv: str, **options: object) -> proc.Completed:
    return asyncio.run(proc.run(list(argv), **options))  # type: ignore[arg-type]


def test_output_input_and_status() -> None:
    assert run("cat", stdin=b"hello").stdout == b"hello"
    assert run("sh", "-c", "exit 3", check=False).returncode == 3
    with pytest.raises(CorralError) as caught:
        run("sh", "-c", "echo why >&2; exit 3")
    assert (caught.value.code, caught.value.reason) == ("command-failed", "why")


def test_a_missing_program_is_coded() -> None:
    with pytest.raises(CorralError) as caught:
        run("no-such-program-here")
    assert caught.value.code == "command-missing"


def test_a_late_command_dies_with_its_children(tmp_path: object) -> None:
    marker = f"4242.{os.getpid()}"
    started = time.monotonic()
    with pytest.raises(CorralError) as caught:
        run("sh", "-c", f"sleep {marker} & sleep {marker}", timeout_s=0.3)
    assert caught.value.code == "command-timeout"
    assert time.monotonic() - started < 10
    deadline = time.monotonic() + 5
    while marker in run("ps", "-eo", "args").stdout.decode() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marker not in run("ps", "-eo", "args").stdout.decode()


def test_endless_output_is_refused() -> None:
    with pytest.raises(CorralError) as caught:
        run("yes", timeout_s=20)
    assert caught.value.code == "command-failed"


def test_memory_is_bounded() -> None:
    done = run(
        "python3", "-c", "x = bytearray(2**30)", check=False, limits=proc.Limits(memory_bytes=256 * 2**20), timeout_s=30
    )
    assert done.returncode != 0


def test_lines_come_as_they_are_written() -> None:
    async def collect() -> list[str]:
        return [line async for line in proc.lines(["sh", "-c", "echo a; echo b >&2; echo c"], timeout_s=10)]

    assert asyncio.run(collect()) == ["a", "b", "c"]
