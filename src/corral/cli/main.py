"""The entry point: global options, lazy loading of commands, errors turned into exit codes."""

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from corral.cli.aliases import ALIASES, expand
from corral.cli.commands import COMMANDS, sections
from corral.cli.session import Session, show_error
from corral.errors import EXIT_FAILED, CorralError
from corral.version import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

GC_THRESHOLD = 50_000
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it

_EPILOG = """\b
Examples:
  corral create --name web --image debian-12 --memory 2G --vcpus 2
  corral list --all
  corral ssh web
  corral shutdown web db --force-after 60s
  corral delete web

\b
Exit codes: 0 done, 1 failed, 2 usage or bad input, 3 not found, 4 conflict,
5 not permitted, 6 daemon unreachable. With several names the first failure's.

\b
Environment: CORRAL_SOCKET, CORRAL_STATE_DIR (which daemon), CORRAL_URL and
CORRAL_TOKEN (a daemon over TLS), CORRAL_PROJECT, NO_COLOR."""


class CommandTable(click.Group):
    """A group whose commands are imported when they are called; virsh's verbs lead to ours."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(import_module(f"corral.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, expand(args))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """From the table, without importing any command."""
        from click.shell_completion import CompletionItem

        known = {name: entry.help for name, entry in COMMANDS.items()}
        known.update({name: " ".join(command) for name, command in ALIASES.items()})
        items = [CompletionItem(name, help=text) for name, text in known.items() if name.startswith(incomplete)]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, names in sections().items():
            with formatter.section(section):
                formatter.write_dl([(name, COMMANDS[name].help) for name in names])
        with formatter.section("virsh's verbs work too"):
            formatter.write_dl([(name, " ".join(command)) for name, command in ALIASES.items()])


@click.group(
    cls=CommandTable,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--socket", metavar="PATH", default="", help="The daemon's Unix socket.")
@click.option(
    "--state-dir", metavar="DIR", default="", help="The daemon's state directory; its socket is run/corral.sock."
)
@click.option("--url", metavar="URL", default="", help="A daemon over TLS: https://HOST:PORT, with CORRAL_TOKEN.")
@click.option("--ca-file", metavar="FILE", default="", help="Certificates to trust with --url.")
@click.option("--project", metavar="NAME", default="", help="The project to work in.  [default: default]")
@click.option("-v", "--verbose", is_flag=True, help="Say what is being done.")
@click.version_option(__version__, prog_name="corral", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, socket: str, state_dir: str, url: str, ca_file: str, project: str, verbose: bool) -> None:
    """Corral: virtual machines on QEMU/KVM and libvirt."""
    ctx.obj = Session(socket=socket, state_dir=state_dir, url=url, ca_file=ca_file, project=project, verbose=verbose)
    ctx.call_on_close(ctx.obj.close)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    # Imports make many objects and no garbage: looking for it costs a tenth of a short command.
    gc.set_threshold(GC_THRESHOLD)
    try:
        status = cli.main(args=None if argv is None else list(argv), prog_name="corral", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CorralError as error:
        show_error(error)
        return error.exit_status
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has gone (`corral list | head`); the interpreter's own flush must not complain either.
        sys.stdout = None
        return EXIT_FAILED
    return status if isinstance(status, int) else 0
