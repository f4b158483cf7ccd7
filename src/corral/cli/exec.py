"""`corral exec`: a command in the guest, through its agent, with both streams and its exit code."""

import sys
from typing import Final

import click

from corral.cli.completion import complete_vm
from corral.cli.options import CommandInGuest
from corral.cli.session import Session, pass_session
from corral.errors import EXIT_FAILED, CorralError
from corral.names import MIB, parse_duration_s

STDIN_MAX_BYTES: Final = MIB // 4  # base64 in one request: below the API's limit of a body
SIGNAL_BASE: Final = 128  # as shells say it


@click.command(
    "exec", cls=CommandInGuest, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.option("-i", "--stdin", "with_stdin", is_flag=True, help="Hand on standard input (at most 256 KiB).")
@click.option("--timeout", metavar="TIME", default="60s", show_default=True, help="How long the command may take.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND…")
@pass_session
def exec_(session: Session, name: str, with_stdin: bool, timeout: str, command: tuple[str, ...]) -> None:
    """Run a command in the guest through the guest agent; no network is needed, no shell is put between.

    Standard output and standard error are the command's, the exit code too (128 + N after signal N). Options
    of exec come before the `--`.

    \b
    Examples:
      corral exec web -- uname -a
      corral exec web -- sh -c 'systemctl is-active nginx || journalctl -u nginx'
      corral exec -i --timeout 10s web -- tee /etc/motd < motd
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
        status = SIGNAL_BASE + record.signal if record.signal is not None else (record.exit_code or 0)
    raise click.exceptions.Exit(status)


def _read_stdin() -> bytes:
    content = sys.stdin.buffer.read(STDIN_MAX_BYTES + 1)
    if len(content) > STDIN_MAX_BYTES:
        raise CorralError(
            "body-too-large",
            "exec -i",
            f"standard input is larger than {STDIN_MAX_BYTES} bytes",
            "copy files with `corral ssh` and scp",
        )
    return content
