"""`corral screenshot`: the VM's screen as a PNG file."""

import sys
from pathlib import Path
from typing import Final

import click

from corral.cli.completion import complete_vm
from corral.cli.session import Session, pass_session
from corral.errors import CorralError

MODE: Final = 0o644
STDOUT: Final = "-"


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.argument("file", required=False)
@click.option("-o", "--output", metavar="FILE", help="Where to write it; - is standard output.  [default: VM.png]")
@pass_session
def screenshot(session: Session, name: str, file: str | None, output: str | None) -> None:
    """Save what a VM's screen shows, as PNG (virsh: screenshot).

    \b
    Examples:
      corral screenshot web
      corral screenshot web -o x.png
      corral screenshot web -o - | display
    """
    if file and output:
        raise click.UsageError("name one file")
    target = output or file or f"{name}.png"
    if target == STDOUT and sys.stdout.isatty():
        raise click.UsageError("a picture is nothing for a terminal: name a file, or send it into a pipe")
    picture = session.client().screenshot(name)
    if target == STDOUT:
        sys.stdout.buffer.write(picture)
        sys.stdout.buffer.flush()
        return
    _write(Path(target), picture)
    click.echo(target)


def _write(path: Path, picture: bytes) -> None:
    from corral.files import storage_error, write_atomic

    if path.exists() and not path.is_file():  # /dev/stdout, a pipe: there is nothing to replace
        try:
            path.write_bytes(picture)
        except OSError as error:
            raise storage_error(f"write {path}", error) from error
    elif not path.parent.is_dir():
        raise CorralError("invalid-argument", f"write {path}", f"there is no directory {path.parent}", "make it first")
    else:
        write_atomic(path, picture, MODE)
