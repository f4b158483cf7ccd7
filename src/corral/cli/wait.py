"""`corral wait`: until a VM runs, has an address, answers SSH, is off, or cloud-init has ended."""

from typing import Final

import click

from corral.cli.options import vm_names
from corral.cli.output import output_option, show_document
from corral.cli.session import Session, for_each, pass_session
from corral.names import parse_duration_s

CONDITIONS: Final = ("running", "agent", "ip", "ssh", "shutoff", "cloud-init")


@click.command()
@vm_names
@click.option("--for", "condition", type=click.Choice(CONDITIONS), required=True, help="What to wait for.")
@click.option("--timeout", metavar="TIME", default="60s", show_default=True, help="How long: 60s, 5m.")
@output_option
@pass_session
def wait(session: Session, names: tuple[str, ...], condition: str, timeout: str, output: str) -> None:
    """Wait for a condition; late means exit code 1 and what was seen last.

    \b
    running     the VM runs              shutoff     it is off
    agent       the guest agent answers  cloud-init  cloud-init has ended
    ip          an address is known      ssh         an SSH server answers there

    \b
    Examples:
      corral wait web --for ssh --timeout 180s
      corral wait web db --for agent
      corral shutdown web --async && corral wait web --for shutoff
    """
    timeout_s = parse_duration_s(timeout, "--timeout")
    documents: list[object] = []

    def work(name: str) -> None:
        answer = session.client().wait_vm(name, condition, timeout_s)
        documents.append(answer)
        if output == "name":
            click.echo(name)
        elif output == "table":
            click.echo(f"{name}: {condition}")

    try:
        for_each(names, work)
    finally:
        if output in ("json", "yaml") and documents:
            show_document(documents[0] if len(names) == 1 else documents, output)
