"""`corral console`: the serial console in raw mode; Ctrl-] leaves, the terminal is given back whatever happens."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.output import tamed
from corral.cli.session import Session, pass_session

if TYPE_CHECKING:
    from corral.client_console import Console

LEAVE: Final = b"\x1d"  # Ctrl-], as in virsh and telnet
CHUNK_BYTES: Final = 4096
# After the end of a pipe the guest's last words are still waited for.
LINGER_S: Final = 1.0


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("--log", is_flag=True, help="Print what the console said until now, and end.")
@click.option("--force", is_flag=True, help="Take the console over from whoever has it.")
@pass_session
def console(session: Session, name: str, log: bool, force: bool) -> None:
    """Open the serial console; Ctrl-] leaves. Without a terminal, standard input and output are used as they are.

    \b
    Examples:
      corral console web
      corral console web --force
      corral console web --log | tail
      echo poweroff | corral console web
    """
    if log:
        said = session.client().console_log(name)
        sys.stdout.buffer.write(tamed(said) if sys.stdout.isatty() else said)
        sys.stdout.buffer.flush()
        return
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    remote = session.client().console(name, force=force)
    try:
        on_terminal = os.isatty(stdin)
        if on_terminal:
            click.echo(f"Connected to {name}. Ctrl-] leaves.", err=True)
        with raw_terminal(stdin):
            reason = relay(remote, stdin, stdout)
    finally:
        remote.close()
    if on_terminal:
        click.echo(f"\r\n{reason}", err=True)


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C too; the terminal is as before afterwards. Nothing happens to a pipe."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def relay(remote: "Console", stdin: int, stdout: int) -> str:
    """Carry bytes both ways until one side ends; why, for people."""
    sources: list[int] = [stdin, remote.fileno()]
    while True:
        ready, _, _ = select.select(sources, [], [], None if stdin in sources else LINGER_S)
        if not ready:
            return "Left: the input ended."
        if remote.fileno() in ready and not _from_guest(remote, stdout):
            return f"The console ended: {remote.close_reason or 'the VM has stopped'}."
        if stdin in ready:
            typed = os.read(stdin, CHUNK_BYTES)
            if not typed:
                sources.remove(stdin)
            elif os.isatty(stdin) and LEAVE in typed:
                remote.send(typed[: typed.index(LEAVE)])
                return "Left the console; the VM goes on."
            else:
                remote.send(typed)


def _from_guest(remote: "Console", stdout: int) -> bool:
    """Print all that has come; False at the end."""
    while (data := remote.recv(0)) is not None:
        if not data:
            return False
        view = memoryview(data)
        while view:
            view = view[os.write(stdout, view) :]
    return True
