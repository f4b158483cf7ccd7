"""`corral snapshot`: points in time of a VM."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.clone import clone_options, make_clones
from corral.cli.completion import complete_snapshot, complete_vm
from corral.cli.options import async_option
from corral.cli.output import Column, Document, age, output_option, show_document, show_list, show_one
from corral.cli.progress import finish, wait_for
from corral.cli.session import Session, pass_session
from corral.cli.snapshot_diff import diff
from corral.cli.snapshot_policy import policy
from corral.names import format_bytes

if TYPE_CHECKING:
    from typing import Unpack

    from corral.cli.clone import Wish
    from corral.client_types import CreateSnapshotRequest

_VM: Final = click.argument("vm", metavar="VM", shell_complete=complete_vm)
_SNAPSHOT: Final = click.argument("name", metavar="SNAPSHOT", shell_complete=complete_snapshot)


def pause(snapshot: Document) -> str:
    """How long the guest stood still, at most."""
    found = snapshot["status"]["pause_ms"]
    return "" if found is None else f"{found:.0f} ms"


COLUMNS: Final = (
    Column("name", lambda snapshot: snapshot["shown_name"]),
    Column("state", lambda snapshot: snapshot["status"]["state"] if snapshot["status"]["ready"] else "being taken"),
    Column("memory", lambda snapshot: format_bytes(snapshot["status"]["memory_bytes"]), right=True),
    Column("pause", pause, right=True),
    Column("age", lambda snapshot: age(snapshot["status"]["taken_at"] or snapshot["created_at"])),
    Column("description", lambda snapshot: snapshot["spec"]["description"]),
)


@click.group()
def snapshot() -> None:
    """Points in time of a VM: take one, go back to it, delete it in any order.

    \b
    Examples:
      corral snapshot create web before-upgrade
      corral snapshot list web
      corral snapshot revert web before-upgrade
      corral snapshot delete web before-upgrade
    """


@snapshot.command()
@_VM
@click.argument("name", metavar="SNAPSHOT")
@click.option("--memory", is_flag=True, help="With the guest's memory: going back, it goes on exactly where it was.")
@click.option("--quiesce", is_flag=True, help="Let the guest's agent freeze its file systems for that instant.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@async_option
@output_option
@pass_session
def create(
    session: Session,
    vm: str,
    name: str,
    memory: bool,
    quiesce: bool,
    description: str,
    asynchronous: bool,
    output: str,
) -> None:
    """Take a snapshot of all disks at one instant; the guest goes on (virsh: snapshot-create-as).

    \b
    Examples:
      corral snapshot create web before-upgrade
      corral snapshot create web warm --memory --description "logged in, caches full"
      corral snapshot create db nightly --quiesce
    """
    body: CreateSnapshotRequest = {
        "name": name,
        "memory": memory,
        "quiesce": quiesce,
        "description": description,
        "labels": {},
    }
    if asynchronous or output == "name":
        request = session.client().create_snapshot
        finish(
            session,
            (name,),
            lambda _: request(vm, body)["operation"],
            output=output,
            done="taken",
            asynchronous=asynchronous,
        )
        return
    wait_for(session, session.client().create_snapshot(vm, body)["operation"])
    found: Document = session.client().get_snapshot(vm, name)
    if output != "table":
        show_document(found, output)
        return
    stood = pause(found)
    click.echo(f"{vm}: {name} taken" + (f"; the guest stood still for {stood} at most" if stood else ""))


@snapshot.command("list")
@_VM
@output_option
@pass_session
def list_(session: Session, vm: str, output: str) -> None:
    """Show a VM's snapshots as the tree that they are; `*` marks where the VM came from (virsh: snapshot-list --tree).

    \b
    Examples:
      corral snapshot list web
      corral snapshot list web -o json
    """
    found: list[Any] = list(session.client().list_snapshots(vm))
    if output != "table":
        show_list(found, COLUMNS, output)
        return
    here = session.client().get_vm(vm)["spec"].get("snapshot_uid")
    show_list(list(tree(found, here)), COLUMNS, output)


def tree(found: Sequence[Document], here: str | None) -> Iterator[Document]:
    """The snapshots with `shown_name`, each below what it came from."""
    known = {snapshot["uid"] for snapshot in found}

    def below(parent: str | None, indent: str) -> Iterator[Document]:
        children = [one for one in found if _parent(one, known) == parent]
        for number, one in enumerate(children, 1):
            last = number == len(children)
            branch = "" if parent is None else f"{indent}{'└─' if last else '├─'}"
            shown = f"{branch}{one['name']}{' *' if one['uid'] == here else ''}"
            yield {**one, "shown_name": shown}
            yield from below(one["uid"], "" if parent is None else f"{indent}{'  ' if last else '│ '}")

    yield from below(None, "")


def _parent(snapshot: Document, known: set[str]) -> str | None:
    """One that came from a hidden point, or from one that is gone, stands at the top."""
    parent: str | None = snapshot["spec"]["parent_uid"]
    return parent if parent in known else None


@snapshot.command()
@_VM
@_SNAPSHOT
@output_option
@pass_session
def show(session: Session, vm: str, name: str, output: str) -> None:
    """Show a snapshot (virsh: snapshot-info).

    \b
    Examples:
      corral snapshot show web before-upgrade
    """
    found: Document = session.client().get_snapshot(vm, name)
    spec, status = found["spec"], found["status"]
    parents = {one["uid"]: one["name"] for one in session.client().list_snapshots(vm)} if output == "table" else {}
    kept = [{"nvram": "UEFI variables", "tpm": "TPM"}[name] for name in status["kept"]]
    rows: list[tuple[str, object]] = [
        ("name", found["name"]),
        ("uid", found["uid"]),
        ("description", spec["description"]),
        ("came from", parents.get(spec["parent_uid"])),
        ("ready", status["ready"]),
        ("taken", status["taken_at"]),
        ("the VM was", status["state"]),
        ("guest stood still", pause(found)),
        ("quiesced", status["quiesced"]),
        ("memory", format_bytes(status["memory_bytes"]) if spec["with_memory"] else "not kept"),
        ("kept too", ", ".join(kept)),
        *((f"disk {disk['name']}", format_bytes(disk["size_bytes"])) for disk in spec["disks"]),
    ]
    show_one(found, rows, output)


@snapshot.command()
@_VM
@_SNAPSHOT
@async_option
@output_option
@pass_session
def revert(session: Session, vm: str, name: str, asynchronous: bool, output: str) -> None:
    """Go back to a snapshot, of a VM that runs or is off (virsh: snapshot-revert).

    \b
    What was written since is lost, unless another snapshot has it: take one first if it matters. A VM that runs is
    stopped and started on what its disks were; with memory, it goes on from there without booting.
    Examples:
      corral snapshot revert web before-upgrade
    """
    request = session.client().revert_to_snapshot
    finish(
        session,
        (vm,),
        lambda _: request(vm, name)["operation"],
        output=output,
        done=f"is where it was at {name}",
        asynchronous=asynchronous,
    )


@snapshot.command()
@_VM
@click.argument("names", metavar="SNAPSHOT…", nargs=-1, required=True, shell_complete=complete_snapshot)
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts; nothing is asked.")
@async_option
@output_option
@pass_session
def delete(session: Session, vm: str, names: tuple[str, ...], yes: bool, asynchronous: bool, output: str) -> None:
    """Delete snapshots, in any order; the others and the VM keep what they hold (virsh: snapshot-delete).

    \b
    The space is given back in the background.
    Examples:
      corral snapshot delete web before-upgrade
      corral snapshot delete web monday tuesday
    """
    del yes
    request = session.client().delete_snapshot
    finish(
        session,
        names,
        lambda name: request(vm, name)["operation"],
        output=output,
        done="deleted",
        asynchronous=asynchronous,
    )


@snapshot.command("clone-from")
@_VM
@_SNAPSHOT
@click.argument("names", metavar="NEW…", nargs=-1, required=True)
@clone_options
@pass_session
def clone_from(session: Session, vm: str, name: str, names: tuple[str, ...], **wish: "Unpack[Wish]") -> None:
    """Make other VMs from what a VM was at a snapshot: `corral clone VM NEW --from-snapshot SNAPSHOT`.

    \b
    Examples:
      corral snapshot clone-from web before-upgrade web-old --start
    """
    make_clones(session, vm, names, None, name, wish)


snapshot.add_command(diff)
snapshot.add_command(policy)
