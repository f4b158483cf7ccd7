"""`corral create`: a VM from an image, with disks, networks, keys and cloud-init."""

from typing import Any, Final

import click

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


@click.command()
@click.argument("positional", metavar="[NAME]", required=False)
@vm_options(_SHORT)
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
    """
    timeout_s = parse_duration_s(options["timeout"], "--timeout")
    body = build_request(session, options)
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
