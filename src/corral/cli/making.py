"""How `corral create` and `corral install` make a VM: one way, whatever the command is called."""

import os
import sys
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import click

from corral.cli import keys
from corral.cli.media import find_file, resolve_media
from corral.cli.output import lines_of, show_document
from corral.cli.progress import wait_for
from corral.cli.session import Session
from corral.cli.unattended import add_installer
from corral.cli.vm_request import Body, Options, needs_key, request_body
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client_types import CreateVmRequest


def build_request(options: Options) -> Body:
    """The request, as it is written on the command line."""
    name = options["name"] or options.get("positional") or ""
    if not name:
        raise click.UsageError("give the VM a name: --name NAME")
    if options["name"] and options.get("positional"):
        raise click.UsageError(f"two names: {options['name']} and {options['positional']}")
    options = {**options, "dry_run": options["dry_run"] or options["print_xml"]}
    return request_body(name, options)


def bring_media(session: Session, body: Body, options: Options) -> list[str]:
    """What the drives hold is made or imported, if it is not there yet. Returns the images that were."""
    return [*add_installer(session, body, options), *resolve_media(session, body)]


def _check_first(session: Session, body: Body, options: Options) -> None:
    """A key, or media, are made for a request that is not refused: it is asked without them what is in its way."""
    drives = [disk for disk in body.get("disks", []) if disk.get("medium")]
    if not (drives or options["location"] or options["unattended"] or needs_key(options, body)):
        return
    trial = {**deepcopy(body), "dry_run": True}
    for disk in trial.get("disks", []):
        if (text := disk.pop("medium", None)) and find_file(text) is None:
            disk["image"] = text
    session.client().create_vm(cast("CreateVmRequest", trial))


def preview(session: Session, body: Body, options: Options) -> None:
    """A dry run: print what would be made."""
    bring_media(session, body, options)
    # The route answers with another document than for a real request.
    found: Any = session.client().create_vm(cast("CreateVmRequest", body))
    warn(found)
    if options["print_xml"]:
        click.echo(found["document"])
    elif options["output"] == "table":
        click.echo(f"{body['name']}: nothing is in the way; nothing was made")
    else:
        show_document(found["vm"], options["output"])


def warn(answer: Any) -> None:
    for text in answer.get("warnings", ()):
        click.echo(f"warning: {lines_of(text)}", err=True)


def make(session: Session, body: Body, options: Options) -> bool:
    """Ask, and wait until it is made; False where nobody waits (--async)."""
    _check_first(session, body, options)
    if needs_key(options, body):
        body["ssh_keys"] = keys.own_or_made()
    made = bring_media(session, body, options)
    try:
        accepted = session.client().create_vm(cast("CreateVmRequest", body))
    except CorralError:
        for image in made:
            with suppress(CorralError):  # the refusal is what its caller has to hear
                session.client().delete_image(image)
        raise
    warn(accepted)
    if options["asynchronous"]:
        if options["output"] in ("table", "name"):
            click.echo(accepted["operation"]["uid"])
        else:
            show_document(accepted, options["output"])
        return False
    wait_for(session, accepted["operation"])
    return True


def show_made(session: Session, body: Body, options: Options, done: str) -> None:
    name, output = body["name"], options["output"]
    if output == "name":
        click.echo(name)
    elif output == "table":
        click.echo(f"{name}: {done}")
    else:
        show_document(session.client().get_vm(name), output)


def on_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdout.isatty() and os.isatty(sys.stdin.fileno())
