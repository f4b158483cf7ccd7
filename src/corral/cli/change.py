"""Changing a VM's particulars: rename, describe, tag, protect, unprotect, autostart."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.options import async_option, seconds, vm_names
from corral.cli.output import output_option, printable, show_document
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client_types import BootOrder, Operation, UpdateVmRequest, VmAccepted

# The boot order is read, changed and written back: a status written in between makes the revision stale.
STALE_RETRIES: Final = 5


def _update(
    session: Session,
    names: tuple[str, ...],
    body: "UpdateVmRequest",
    done: str,
    output: str,
    asynchronous: bool = False,
) -> None:
    finish(
        session,
        names,
        lambda name: session.client().update_vm(name, body)["operation"],
        output=output,
        done=done,
        asynchronous=asynchronous,
    )


def finish_change(
    session: Session,
    names: tuple[str, ...],
    request: "Callable[[str], VmAccepted]",
    done: str,
    output: str,
    asynchronous: bool,
) -> None:
    """Ask for a change of each VM's machine, wait for it, and say what a running guest has only after its restart."""
    finish(session, names, lambda name: request(name)["operation"], output=output, done=done, asynchronous=asynchronous)
    for name in () if asynchronous else names:
        tell_pending(session, name)


def tell_pending(session: Session, name: str) -> None:
    """What a running guest has only after its restart, and what counts as one."""
    sentences = session.client().get_vm(name)["status"].get("pending_restart", ())
    for sentence in sentences:
        click.echo(f"{name}: waits for a restart: {printable(sentence)}", err=True)
    if sentences:
        click.echo(f"{name}: `corral reboot {name}` brings it; a reboot from inside the guest does not", err=True)


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.argument("new_name", metavar="NEW-NAME")
@async_option
@output_option
@pass_session
def rename(session: Session, name: str, new_name: str, asynchronous: bool, output: str) -> None:
    """Give a VM another name (virsh: domrename). libvirt renames only domains that are off.

    \b
    Examples:
      corral rename web www
    """
    _update(session, (name,), {"name": new_name}, f"renamed to {new_name}", output, asynchronous)


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.argument("text", required=False)
@async_option
@output_option
@pass_session
def describe(session: Session, name: str, text: str | None, asynchronous: bool, output: str) -> None:
    """Show a VM's description, or set it to TEXT (virsh: desc); an empty TEXT removes it.

    \b
    Examples:
      corral describe web
      corral describe web "The shop's front end"
      corral describe web ""
    """
    if text is not None:
        _update(session, (name,), {"description": text}, "described", output, asynchronous)
    elif output == "table":
        click.echo(session.client().get_vm(name)["spec"]["description"])
    else:
        show_document({"name": name, "description": session.client().get_vm(name)["spec"]["description"]}, output)


@click.command()
@click.argument("name", metavar="VM", shell_complete=complete_vm)
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE | KEY | KEY-]…")
@output_option
@pass_session
def tag(session: Session, name: str, tags: tuple[str, ...], output: str) -> None:
    """Show a VM's labels, set them (KEY=VALUE, or KEY alone), or remove them (KEY-).

    \b
    Examples:
      corral tag web
      corral tag web env=production tier=front
      corral tag web tier-
      corral list --all -l env=production
    """
    if not tags:
        labels = session.client().get_vm(name)["labels"]
        if output == "table":
            for key, value in sorted(labels.items()):
                click.echo(f"{key}={value}")
        else:
            show_document(labels, output)
        return
    added, removed = parse_tags(tags)
    _update(session, (name,), {"add_labels": added, "remove_labels": removed}, "tagged", output)


def parse_tags(tags: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """What to set (KEY=VALUE, KEY) and what to take out (KEY-)."""
    added: dict[str, str] = {}
    removed: list[str] = []
    for word in tags:
        key, equals, value = word.partition("=")
        if not equals and key.endswith("-"):
            removed.append(key[:-1])
        else:
            added[key] = value
    return added, removed


@click.command()
@vm_names
@output_option
@pass_session
def protect(session: Session, names: tuple[str, ...], output: str) -> None:
    """Refuse deletion of VMs until `corral unprotect`.

    \b
    Examples:
      corral protect web db
    """
    _update(session, names, {"protected": True}, "protected", output)


@click.command()
@vm_names
@output_option
@pass_session
def unprotect(session: Session, names: tuple[str, ...], output: str) -> None:
    """Allow deletion of VMs again.

    \b
    Examples:
      corral unprotect web
    """
    _update(session, names, {"protected": False}, "unprotected", output)


@click.command()
@vm_names
@click.option("--disable", is_flag=True, help="Do not start them with the host any more.")
@click.option("--priority", type=int, help="Lower starts earlier and is shut down later.")
@click.option("--delay", metavar="TIME", callback=seconds, help="Wait this long after starting this one.")
@output_option
@pass_session
def autostart(
    session: Session, names: tuple[str, ...], disable: bool, priority: int | None, delay: float | None, output: str
) -> None:
    """Start VMs when the host boots, in the order of their priority (virsh: autostart).

    \b
    Examples:
      corral autostart db --priority 10 --delay 30s
      corral autostart web
      corral autostart web --disable
    """

    def request(name: str) -> "Operation":
        for attempt in range(STALE_RETRIES + 1):
            vm = session.client().get_vm(name)
            boot: BootOrder = {**vm["spec"]["boot"], "autostart": not disable}
            if priority is not None:
                boot["priority"] = priority
            if delay is not None:
                boot["delay_s"] = delay
            try:
                return session.client().update_vm(name, {"boot": boot}, if_match=str(vm["revision"]))["operation"]
            except CorralError as error:
                if error.code != "stale-revision" or attempt == STALE_RETRIES:
                    raise
        raise AssertionError("unreachable")

    finish(
        session,
        names,
        request,
        output=output,
        done="no autostart" if disable else "autostart",
        asynchronous=False,
    )
