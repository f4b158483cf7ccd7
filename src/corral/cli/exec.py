"""`corral exec`: a command in the guest, through its agent, with both streams and its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.options import CommandInGuest
from corral.cli.session import Session, pass_session
from corral.errors import EXIT_FAILED, CorralError
from corral.names import MIB, parse_duration_s

if TYPE_CHECKING:
    from corral.client import ExecEnd

STDIN_MAX_BYTES: Final = MIB // 8  # base64 in one message to the guest's agent
SIGNAL_BASE: Final = 128  # as shells say it
CODE_MAX: Final = 255


@click.command(
    "exec", cls=CommandInGuest, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("-i", "--stdin", "with_stdin", is_flag=True, help="Hand on standard input (at most 128 KiB).")
@click.option("--timeout", metavar="TIME", default="60s", show_default=True, help="How long the command may take.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND…")
@pass_session
def exec_(session: Session, name: str, with_stdin: bool, timeout: str, command: tuple[str, ...]) -> None:
    """Run a command in the guest through the guest agent; no network is needed, no shell is put between.

    Standard output and standard error come as the command writes them; the exit code is its own too (128 + N
    after signal N). It is stopped when this command is, and after --timeout. Options of exec come before the `--`.

    \b
    Examples:
      corral exec web -- uname -a
      corral exec web -- sh -c 'systemctl is-active nginx || journalctl -u nginx'
      corral exec web --timeout 30m -- apt-get upgrade -y
      corral exec -i web -- sh < script
    """
    from corral.client import ExecOutput

    timeout_s = parse_duration_s(timeout, "--timeout")
    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise click.UsageError("name a command: corral exec VM -- COMMAND")
    stdin = _read_stdin() if with_stdin else b""
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    status = EXIT_FAILED
    for record in session.client().exec(name, list(argv), stdin=stdin, timeout_s=timeout_s):
        if isinstance(record, ExecOutput):
            streams[record.stream].write(record.data)
            streams[record.stream].flush()
            continue
        if record.truncated:
            click.echo("note: the command said more than the daemon keeps; the rest was cut", err=True)
        if not record.streamed and sys.stderr.isatty():
            click.echo("note: this guest shows what a command writes at its end alone", err=True)
        status = _status(record)
    raise click.exceptions.Exit(status)


def _status(end: ExecEnd) -> int:
    """The command's own code. What is none here (Windows has codes of 32 bits) must not turn into a 0."""
    if end.signal is not None:
        click.echo(f"note: the command was ended by signal {end.signal}", err=True)
        return SIGNAL_BASE + end.signal
    code = end.exit_code or 0
    return code if 0 <= code <= CODE_MAX else CODE_MAX


def _read_stdin() -> bytes:
    content = sys.stdin.buffer.read(STDIN_MAX_BYTES + 1)
    if len(content) > STDIN_MAX_BYTES:
        raise CorralError(
            "body-too-large",
            "exec -i",
            f"standard input is larger than {STDIN_MAX_BYTES} bytes",
            "corral cp FILE VM:/tmp/, and let the command read it there",
        )
    return content
