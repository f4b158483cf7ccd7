"""The console's relay over pipes and a pseudo terminal; the terminal is given back whatever happens."""

import os
import socket
import termios
import threading
from collections.abc import Iterator

import pytest

from corral.cli.console import LEAVE, raw_terminal, relay


class Guest:
    """The guest's end: a socket pair in the place of the WebSocket."""

    close_reason = ""

    def __init__(self) -> None:
        self.ours, self.far = socket.socketpair()

    def fileno(self) -> int:
        return self.ours.fileno()

    def send(self, data: bytes) -> None:
        self.ours.sendall(data)

    def recv(self, timeout_s: float | None = None) -> bytes | None:
        self.ours.settimeout(timeout_s or 0.0)
        try:
            return self.ours.recv(4096)
        except BlockingIOError:
            return None

    def close(self) -> None:
        self.ours.close()
        self.far.close()


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.close()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    near, far = os.openpty()
    yield near, far
    os.close(near)
    os.close(far)


def test_a_pipe_is_carried_both_ways(guest: Guest) -> None:
    stdin, typed = os.pipe()
    shown, stdout = os.pipe()
    os.write(typed, b"hello")
    os.close(typed)
    guest.far.sendall(b"login: ")
    answer = relay(guest, stdin, stdout)  # type: ignore[arg-type]
    assert answer == "Left: the input ended."
    assert guest.far.recv(100) == b"hello"
    assert os.read(shown, 100) == b"login: "


def test_the_end_of_the_guest_ends_it(guest: Guest) -> None:
    stdin, typed = os.pipe()
    guest.far.sendall(b"bye")
    guest.far.shutdown(socket.SHUT_WR)
    shown, stdout = os.pipe()
    assert relay(guest, stdin, stdout).startswith("The console ended")  # type: ignore[arg-type]
    assert os.read(shown, 100) == b"bye"
    os.close(typed)


def test_control_and_bracket_leave_and_what_was_typed_before_is_sent(guest: Guest, terminal: tuple[int, int]) -> None:
    near, far = terminal
    _shown, stdout = os.pipe()
    with raw_terminal(far):
        os.write(near, b"ls\r" + LEAVE + b"more")
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(relay(guest, far, stdout)))  # type: ignore[arg-type]
        thread.start()
        thread.join(5)
    assert answers == ["Left the console; the VM goes on."]
    assert guest.far.recv(100) == b"ls\r"


def test_a_pipe_may_carry_any_byte(guest: Guest) -> None:
    stdin, typed = os.pipe()
    _shown, stdout = os.pipe()
    os.write(typed, b"a" + LEAVE + b"b")
    os.close(typed)
    relay(guest, stdin, stdout)  # type: ignore[arg-type]
    assert guest.far.recv(100) == b"a" + LEAVE + b"b"


def test_the_terminal_is_given_back_after_an_error(terminal: tuple[int, int]) -> None:
    _near, far = terminal
    before = termios.tcgetattr(far)

    def fail() -> None:
        with raw_terminal(far):
            assert termios.tcgetattr(far) != before
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert termios.tcgetattr(far) == before
