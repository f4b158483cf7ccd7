"""`corral doctor`: what an examination of the host found, and what to do."""

from typing import Any, Final

import click

from corral.cli.output import colour_wanted, output_option, printable, show_document
from corral.cli.session import Session, pass_session
from corral.errors import EXIT_FAILED

_COLOURS: Final = {"ok": "green", "info": "blue", "warning": "yellow", "error": "red"}


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@output_option
@pass_session
def doctor(session: Session, quiet: bool, output: str) -> None:
    """Check the host like virt-host-validate, and more, and say for each finding what to do.

    Exit code 1 when there is an error among the findings.

    \b
    Examples:
      corral doctor
      corral doctor --quiet
      corral doctor -o json
    """
    findings: list[Any] = list(session.client().doctor())
    shown = [item for item in findings if not quiet or item["level"] in ("warning", "error")]
    if output in ("json", "yaml"):
        show_document(shown, output)
    elif output == "name":
        click.echo("\n".join(item["id"] for item in shown))
    else:
        for item in shown:
            level = f"{item['level']:<7}"
            level = click.style(level, fg=_COLOURS.get(item["level"])) if colour_wanted() else level
            click.echo(f"{level} {item['id']}: {printable(item['found'])}")
            if item.get("action"):
                click.echo(f"        -> {printable(item['action'])}")
    if any(item["level"] == "error" for item in findings):
        raise click.exceptions.Exit(EXIT_FAILED)
