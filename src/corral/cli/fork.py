"""`corral fork`: VMs from a template, or from a running VM, running."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from corral.cli.clone import clone_names
from corral.cli.options import async_option
from corral.cli.output import output_option
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.names import parse_duration_s

if TYPE_CHECKING:
    from corral.client_types import ForkRequest, LiveForkRequest


@click.command()
@click.argument("template", metavar="TEMPLATE")
@click.argument("names", metavar="[NAME]…", nargs=-1)
@click.option(
    "--count", type=click.IntRange(1, 100), help="Make so many, called NAME-1, NAME-2 … (TEMPLATE-1 … without NAME)."
)
@click.option(
    "--boot", is_flag=True, help="Boot them from the template's disks, although it has a memory to go on from."
)
@click.option("--live", is_flag=True, help="Of a running VM instead of a template: TEMPLATE names it, and it goes on.")
@click.option("--wait", "wait_condition", type=click.Choice(["running", "agent", "ip", "ssh"]), help="Wait until then.")
@click.option("--timeout", metavar="TIME", default="300s", show_default=True, help="For --wait.")
@click.option("--force", is_flag=True, help="Also where the disks, filled to the brim, would not fit.")
@async_option
@output_option
@pass_session
def fork(
    session: Session,
    template: str,
    names: tuple[str, ...],
    count: int | None,
    boot: bool,
    live: bool,
    wait_condition: str | None,
    timeout: str,
    force: bool,
    asynchronous: bool,
    output: str,
) -> None:
    """Make VMs of a template. Of a hot one they go on from its memory, in about a second, instead of booting.

    \b
    Each is told who it is before its cable is in: host name, machine id, SSH host keys, MAC, address.
    Examples:
      corral fork base web-1
      corral fork base --count 50 --wait ip
      corral fork base web-2 --boot
      corral --project lab fork default/base web-3
      corral fork --live web web-copy
    """
    if live and boot:
        raise click.UsageError("--live goes on from memory, --boot does not")
    wanted = clone_names(session.client(), template.rpartition("/")[2], names, count)
    options = {"asynchronous": asynchronous, "output": output, "wait_condition": wait_condition}
    timeout_s = parse_duration_s(timeout, "--timeout")
    if live:
        _fork_live(session, template, {"names": wanted, "force": force}, options)
        _wait(session, wanted, options, timeout_s)
    else:
        _make(session, template, {"names": wanted, "boot": boot, "force": force}, options, timeout_s)


def fork_one(session: Session, template: str, options: dict[str, Any], timeout_s: float) -> None:
    """`corral create NAME --template TEMPLATE`."""
    name = options["name"] or options["positional"]
    if not name or (options["name"] and options["positional"]):
        raise click.UsageError("give the VM one name")
    _make(session, template, {"names": [name], "force": options["force"]}, options, timeout_s)


def _make(session: Session, template: str, body: "ForkRequest", options: dict[str, Any], timeout_s: float) -> None:
    of_project, _, name = template.rpartition("/")
    if of_project:  # another project's, published to this one
        body["of_project"] = of_project
    accepted = session.client().fork_template(name, body)
    operations = {operation["spec"]["target_name"]: operation for operation in accepted["operations"]}
    asynchronous, output = options["asynchronous"], options["output"]
    finish(session, body["names"], operations.__getitem__, output=output, done="running", asynchronous=asynchronous)
    _wait(session, body["names"], options, timeout_s)


def _fork_live(session: Session, vm: str, body: "LiveForkRequest", options: dict[str, Any]) -> None:
    """And say how long the VM stood still, and after what time the new ones are there."""
    began = time.monotonic()
    accepted = session.client().fork_vm(vm, body)
    pause_ms = accepted["pause_ms"]
    if options["output"] == "table" and pause_ms is not None:
        click.echo(f"{vm}: stood still for {pause_ms:.0f} ms")
    operations = {operation["spec"]["target_name"]: operation for operation in accepted["operations"]}
    asynchronous, output = options["asynchronous"], options["output"]
    finish(session, body["names"], operations.__getitem__, output=output, done="running", asynchronous=asynchronous)
    if output == "table" and not asynchronous:
        click.echo(f"after {time.monotonic() - began:.1f} s")


def _wait(session: Session, names: Sequence[str], options: dict[str, Any], timeout_s: float) -> None:
    if options["wait_condition"] and not options["asynchronous"]:
        for name in names:
            session.client().wait_vm(name, options["wait_condition"], timeout_s)
