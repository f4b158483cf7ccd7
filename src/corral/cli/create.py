"""`corral create`: a VM from an image, with disks, networks, keys and cloud-init."""

from typing import Any, Final

import click
from click.core import ParameterSource

from corral.cli.fork import fork_one
from corral.cli.making import build_request, make, preview, show_made
from corral.cli.options import async_option
from corral.cli.output import output_option
from corral.cli.session import Session, pass_session
from corral.cli.vm_options import vm_options
from corral.names import parse_duration_s

_SHORT: Final = {
    "--name": "-n",
    "--image": "-i",
    "--memory": "-m",
    "--vcpus": "-c",
    "--disk": "-d",
    "--network": "-w",
    "--ssh-key": "-k",
    "--user": "-u",
    "--label": "-l",
}
# What a VM of a template is, its template says.
_OF_A_FORK: Final = ("positional", "name", "template", "wait_condition", "timeout", "force", "asynchronous", "output")


@click.command()
@click.argument("positional", metavar="[NAME]", required=False)
@vm_options(_SHORT)
@click.option("--template", metavar="TEMPLATE", help="Make it of a template: its machine, its disks, its memory.")
@click.option(
    "--wait",
    "wait_condition",
    type=click.Choice(["running", "agent", "ip", "ssh", "cloud-init"]),
    help="Also wait until then.",
)
@click.option("--timeout", metavar="TIME", default="300s", show_default=True, help="For --wait.")
@async_option
@output_option
@pass_session
def create(session: Session, /, **options: Any) -> None:
    """Make a VM and start it. Sizes: bare numbers are MiB for memory and GiB for disks, as in virt-install; 512M, 2G work.

    \b
    Examples:
      corral create --name web --image debian-12
      corral create --name web --image debian-12 --memory 2G --vcpus 2 --disk size=20
      corral create db --image debian-12 --disk 10 --disk 100 --label env=test --wait ssh
      corral create old --disk path=/srv/old.qcow2,format=qcow2 --network mac=52:54:00:12:34:56
      corral create ci --image debian-12 --user-data ci.yaml --no-start
      corral create web-1 --template base
    """
    timeout_s = parse_duration_s(options["timeout"], "--timeout")
    if (template := options.pop("template")) is not None:
        fork_one(session, template, _only(_OF_A_FORK), timeout_s)
        return
    body = build_request(options)
    if body.get("dry_run"):
        preview(session, body, options)
        return
    if not (body.get("image") or body.get("disks")):
        click.echo(
            f"note: {body['name']} has neither an image nor a disk: there is nothing that it could boot", err=True
        )
    if not make(session, body, options):
        return
    if options["wait_condition"]:
        session.client().wait_vm(body["name"], options["wait_condition"], timeout_s)
    show_made(session, body, options, "created" if options["no_start"] else "running")


def _only(names: tuple[str, ...]) -> dict[str, Any]:
    """What was given of these options; any other is a mistake."""
    context = click.get_current_context()
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    if others := [flags[name] for name in given if name not in names]:
        raise click.UsageError(f"a VM of a template is as its template says: leave {', '.join(others)} out")
    return {name: context.params[name] for name in names}
