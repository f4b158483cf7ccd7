"""`corral vnc`: the VM's screen in a viewer, through the daemon: a local port for one connection of the caller's own."""

import os
import select
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.output import output_option, show_document
from corral.cli.session import Session, pass_session
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client_console import Console
    from corral.proc import Child

LOOPBACK: Final = "127.0.0.1"
TCP_TABLE: Final = Path("/proc/net/tcp")
CHUNK_BYTES: Final = 65536
# RFB's port 5900 + N is display N.
FIRST_PORT: Final = 5900
POLL_S: Final = 0.5
# How each viewer is told where to look, best known first.
VIEWERS: Final[dict[str, Callable[[int], list[str]]]] = {
    "remote-viewer": lambda port: [f"vnc://{LOOPBACK}:{port}"],
    "vncviewer": lambda port: [f"{LOOPBACK}::{port}"],
    "gvncviewer": lambda port: [f"{LOOPBACK}:{port - FIRST_PORT}"],
    "krdc": lambda port: [f"vnc://{LOOPBACK}:{port}"],
}


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The local port.  [default: any free one]")
@click.option("--no-viewer", is_flag=True, help="Only open the port and say which; start no viewer.")
@click.option("--address", is_flag=True, help="Only say where the graphical console listens (virsh: domdisplay).")
@output_option
@pass_session
def vnc(session: Session, name: str, port: int, no_viewer: bool, address: bool, output: str) -> None:
    """Show a VM's screen in a viewer. Nothing of the VM is open on the network: the daemon carries it.

    A port on 127.0.0.1 takes one connection, of your own user's. It is closed behind the viewer, and the session
    ends with the viewer, or when the VM stops.

    \b
    Examples:
      corral vnc web
      corral vnc web --no-viewer --port 5901
      corral vncdisplay web
    """
    if address:
        _show_address(session, name, output)
        return
    remote = session.client().vnc(name)
    viewer: Child | None = None
    try:
        with socket.create_server((LOOPBACK, port)) as listener:
            port = listener.getsockname()[1]
            click.echo(f"vnc://{LOOPBACK}:{port}")
            viewer = None if no_viewer else _start_viewer(port)
            if viewer is None:
                click.echo("It takes one connection; Ctrl-C ends.", err=True)
            local, greeting = _accept(listener, remote, viewer)
        with local:
            reason = relay(remote, local, greeting)
    except OSError as error:
        raise CorralError("invalid-argument", f"listen on port {port}", error.strerror or str(error)) from error
    finally:
        remote.close()
        if viewer is not None and viewer.poll() is None:
            viewer.terminate()
    click.echo(reason, err=True)


def _show_address(session: Session, name: str, output: str) -> None:
    found = session.client().display(name)
    if output != "table":
        show_document(found, "json" if output == "name" else output)
    elif found["kind"] == "none":
        raise CorralError("unsupported", f"show the display of {name}", "it has no graphical console")
    else:
        click.echo(found["uri"])


def _start_viewer(port: int) -> "Child | None":
    """The first viewer that is installed, where there is a screen to show it on."""
    from corral.proc import spawn
    from corral.settings import variable

    if not (variable("DISPLAY") or variable("WAYLAND_DISPLAY")):
        return None
    for program, arguments in VIEWERS.items():
        if path := shutil.which(program):
            click.echo(f"Starting {program}.", err=True)
            with Path(os.devnull).open("wb") as nothing:
                return spawn([path, *arguments(port)], nothing.fileno())
    click.echo(f"No viewer is installed ({', '.join(VIEWERS)}): connect one to this port.", err=True)
    return None


def _accept(listener: socket.socket, remote: "Console", viewer: "Child | None") -> tuple[socket.socket, bytes]:
    """The one connection, and what the VM has said until then. Another user's is refused: whoever has it has the VM."""
    greeting = b""
    while True:
        ready, _, _ = select.select([listener.fileno(), remote.fileno()], [], [], POLL_S)
        if remote.fileno() in ready:
            data = remote.recv(0)
            if data == b"":
                raise CorralError("wrong-state", "wait for a viewer", f"the session ended: {remote.close_reason}")
            greeting += data or b""
        if listener.fileno() in ready:
            local, peer = listener.accept()
            if owner_of(peer[1], listener.getsockname()[1]) in (os.geteuid(), 0):
                return local, greeting
            click.echo("Refused a connection of another user's.", err=True)
            local.close()
        elif viewer is not None and viewer.poll() is not None:
            raise CorralError("command-failed", "wait for the viewer", f"it ended with status {viewer.returncode}")


@dataclass(frozen=True)
class _Connection:
    """A line of /proc/net/tcp (proc(5)): addresses in hexadecimal, and whose it is."""

    local_port: int
    remote_port: int
    uid: int


def owner_of(from_port: int, to_port: int) -> int | None:
    """The uid of the process on this host that holds the other end of a connection over loopback; None: nobody knows."""
    with TCP_TABLE.open(encoding="ascii") as table:
        next(table)
        for line in table:
            entry = _parse(line)
            if (entry.local_port, entry.remote_port) == (from_port, to_port):
                return entry.uid
    return None


def _parse(line: str) -> _Connection:
    fields = line.split()
    local, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
    return _Connection(local, remote, int(fields[7]))


def relay(remote: "Console", local: socket.socket, greeting: bytes) -> str:
    """Carry bytes both ways until one side ends; why, for people."""
    left = "The viewer was closed; the VM goes on."
    try:
        local.sendall(greeting)
        while True:
            ready, _, _ = select.select([local.fileno(), remote.fileno()], [], [])
            if remote.fileno() in ready and (data := remote.recv(0)) is not None:
                if not data:
                    return f"The session ended: {remote.close_reason or 'the VM has stopped'}."
                local.sendall(data)
            if local.fileno() in ready:
                typed = local.recv(CHUNK_BYTES)
                if not typed:
                    return left
                remote.send(typed)
    except (BrokenPipeError, ConnectionResetError):
        return left
