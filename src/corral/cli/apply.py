"""`corral apply`, `diff`, `down`, `export-spec`: many VMs from one document, and back."""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.change import tell_pending
from corral.cli.completion import complete_stack, complete_vm
from corral.cli.edit import dump
from corral.cli.output import output_option, show_document
from corral.cli.session import Session, pass_session
from corral.cli.stack_run import CHANGED, Progress, Run, State
from corral.cli.stack_show import Lines, LiveTree, deletes, show_plan, show_remarks, somebody_looks, watching
from corral.errors import EXIT_CONFLICT, CorralError
from corral.names import parse_duration_s

if TYPE_CHECKING:
    from corral.client_types import ExportStackRequest, PlanDownRequest, PlanStackRequest

PARALLEL_DEFAULT: Final = 8
PARALLEL_MAX: Final = 64
# What somebody else changed meanwhile is planned anew; a stack that two fight over is given up.
ROUNDS_MAX: Final = 4
STACK_NAME: Final = "stack"

_file = click.option(
    "-f", "--file", "sources", multiple=True, required=True, metavar="FILE|DIR|-",
    help="The document: a file, a folder of .yaml files, or standard input. May come several times.",
)  # fmt: skip
_set = click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Another value for a variable.")
_prune = click.option("--prune", is_flag=True, help="Also delete VMs of the stack that the document no longer names.")
_replace = click.option(
    "--replace", multiple=True, metavar="VM", help="Delete it and make it anew where it cannot be changed in place."
)
_delete_disks = click.option("--delete-disks", is_flag=True, help="Also delete the volumes of disks taken out.")
_parallel = click.option(
    "--parallel", type=click.IntRange(1, PARALLEL_MAX), default=PARALLEL_DEFAULT, show_default=True,
    help="At most so many changes at a time.",
)  # fmt: skip
_timeout = click.option(
    "--timeout", metavar="TIME", default="10m", show_default=True, help="How long to wait for each `after`."
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask before something is deleted.")


@click.command()
@_file
@_set
@click.option("--dry-run", is_flag=True, help="Only show what would change, as `corral diff`.")
@_prune
@_replace
@_delete_disks
@_parallel
@_timeout
@_yes
@output_option
@pass_session
def apply(session: Session, /, **options: Any) -> None:
    """Make what a document says: VMs that are not there, changes of those that are. Again: nothing, or what is left.

    What is wrong is said before anything is done. One VM's error does not stop those that do not need it.

    \b
    Examples:
      corral apply -f lab.yaml
      corral apply -f lab/ --set memory=2G --prune
      corral apply -f lab.yaml --dry-run
      corral export-spec --stack lab | corral apply -f -
    """
    timeout_s = parse_duration_s(options["timeout"], "--timeout")
    planner = _Planner(session, options)
    if options["dry_run"]:
        _show(planner.plan(), options["output"])
        return
    plan = planner.plan_with_keys()
    _check(plan, options)
    _carry_out(session, plan, planner.plan, options, timeout_s)


@click.command()
@_file
@_set
@_prune
@_replace
@_delete_disks
@click.option("--exit-code", is_flag=True, help="End with 1 where something would change.")
@output_option
@pass_session
def diff(session: Session, /, **options: Any) -> None:
    """Show what `corral apply` would change. Nothing is made.

    \b
    Examples:
      corral diff -f lab.yaml
      corral diff -f lab.yaml --exit-code || corral apply -f lab.yaml
    """
    plan = _Planner(session, options).plan()
    _show(plan, options["output"])
    if options["exit_code"] and (plan["actions"] or plan["blocked"]):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("name", metavar="[STACK]", required=False, shell_complete=complete_stack)
@click.option("-f", "--file", "sources", multiple=True, metavar="FILE|DIR|-", help="The document, for its order.")
@_set
@click.option("--keep-disks", is_flag=True, help="Shut each VM down first, and keep its volumes.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@_parallel
@_yes
@output_option
@pass_session
def down(session: Session, /, **options: Any) -> None:
    """Delete the VMs of a stack: first those that others do not wait for. Images and networks stay.

    \b
    Examples:
      corral down -f lab.yaml
      corral down lab --yes
      corral down lab --keep-disks
    """
    from corral.cli.stack_file import load_stack, parse_overrides

    document = load_stack(options["sources"]) if options["sources"] else None
    if document is None and not options["name"]:
        raise click.UsageError("name the stack, or its document: corral down -f FILE")
    stack = options["name"] or (document or {})["stack"]
    if document is not None and document["stack"] != stack:
        raise click.UsageError(f"the document is that of stack {document['stack']}, not of {stack}")
    body: dict[str, Any] = {"stack": stack, "keep_disks": options["keep_disks"]}
    body |= {} if document is None else {"document": document}
    body["variables"] = parse_overrides(options["overrides"])

    def ask() -> Any:
        return session.client().plan_stack_down(cast("PlanDownRequest", body))

    plan = ask()
    if options["dry_run"]:
        _show(plan, options["output"])
        return
    _check(plan, options)
    _carry_out(session, plan, ask, options, parse_duration_s("10m"))


@click.command("export-spec")
@click.argument("names", nargs=-1, metavar="[VM]…", shell_complete=complete_vm)
@click.option("-l", "--selector", default="", metavar="EXPR", help="VMs with these labels: a=b,c!=d,e.")
@click.option(
    "--stack", default="", metavar="NAME", shell_complete=complete_stack,
    help="The VMs of this stack; beside VMs or a selector: the name that the stack gets.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How to show it."
)
@pass_session
def export_spec(session: Session, names: tuple[str, ...], selector: str, stack: str, output: str) -> None:
    """Print the document that says what is; applied, it changes nothing. Passwords, keys and user-data are not in it.

    \b
    Examples:
      corral export-spec --stack lab > lab.yaml
      corral export-spec web db --stack shop
      corral export-spec -l env=test > test.yaml
    """
    if stack and not names and not selector:
        selector = f"corral/stack={stack}"
    if not names and not selector:
        raise click.UsageError("name VMs, or -l SELECTOR, or --stack NAME")
    body: ExportStackRequest = {"stack": stack or STACK_NAME, "vms": list(names), "selector": selector}
    found: Any = session.client().export_stack(body)
    for note in found["notes"]:
        click.echo(f"note: {note}", err=True)
    if output == "json":
        show_document(found["document"], "json")
    else:
        click.echo(dump(found["document"]), nl=False)


class _Planner:
    """Asks what it would take; as often as it has to be asked."""

    def __init__(self, session: Session, options: dict[str, Any]) -> None:
        from corral.cli.keys import own
        from corral.cli.stack_file import load_stack, parse_overrides

        self._session = session
        self._keys = own()
        self._body: dict[str, Any] = {
            "document": load_stack(options["sources"]),
            "variables": parse_overrides(options["overrides"]),
            "prune": options["prune"],
            "replace": list(options["replace"]),
            "delete_disks": options["delete_disks"],
        }

    def plan(self) -> Any:
        body = {**self._body, "ssh_keys": self._keys}
        return self._session.client().plan_stack(cast("PlanStackRequest", body))

    def plan_with_keys(self) -> Any:
        """The plan; where a new VM would have nobody's key and the caller has none, a pair is made."""
        plan = self.plan()
        made = [one["body"] or {} for one in plan["actions"] if one["verb"] == "create"]
        keyless = any(body.get("image") and not body.get("ssh_keys") for body in made)
        if self._keys or not keyless or plan["blocked"]:
            return plan
        from corral.cli.keys import own_or_made

        self._keys = own_or_made()
        return self.plan()


def _show(plan: Any, output: str) -> None:
    if output == "table":
        show_plan(plan)
    elif output == "name":
        for name in dict.fromkeys(action["name"] for action in plan["actions"]):
            click.echo(name)
    else:
        show_document(plan, output)
    show_remarks(plan)


def _check(plan: Any, options: dict[str, Any]) -> None:
    """Say what is in the way, and ask before something is lost."""
    show_remarks(plan)
    if plan["blocked"]:
        first = plan["blocked"][0]
        reason = f"{len(plan['blocked'])} of its VMs cannot become what it says; nothing was done"
        raise CorralError("wrong-state", f"stack {plan['stack']!r}", reason, first["hint"])
    if (lost := deletes(plan)) and not options["yes"] and sys.stdin.isatty() and "-" not in options["sources"]:
        show_plan(plan)
        click.confirm(f"Delete {', '.join(lost)}?", abort=True, err=True)


def _carry_out(
    session: Session, plan: Any, plan_again: Callable[[], Any], options: dict[str, Any], timeout_s: float
) -> None:
    """Carry a plan out, and plan anew what somebody else changed meanwhile. Ends with the first failure's status."""
    output, ended = options["output"], dict[str, Progress]()
    for number in range(ROUNDS_MAX):
        final = number == ROUNDS_MAX - 1
        done = _round(session, plan, options, timeout_s)
        ended |= {one.action["id"]: one for one in done}
        again = any(one.error is not None and one.error.code in CHANGED for one in done)
        if not again or final:
            break
        click.echo("somebody else changes the same VMs: looking again", err=True)
        plan = plan_again()
        _check(plan, {**options, "yes": True})
        ended = {known: one for known, one in ended.items() if one.state is State.DONE}
    _tell_pending(session, ended)
    _report(plan, list(ended.values()), output)


def _round(session: Session, plan: Any, options: dict[str, Any], timeout_s: float) -> list[Progress]:
    quiet = options["output"] != "table"
    run = Run(session, plan["actions"], options["parallel"], timeout_s)
    live = somebody_looks() and plan["actions"]
    view = LiveTree(plan["stack"], run.progress, quiet) if live else Lines(quiet)
    try:
        with watching(view):
            return run.carry_out(view)
    except KeyboardInterrupt:
        going = [one.action["id"] for one in run.progress.values() if one.state is State.RUNNING]
        click.echo(
            f"\n{len(going)} changes go on; the same command again does what is left:\n  "
            + "\n  ".join(f"corral operation watch {one.operation}" for one in run.progress.values() if one.operation),
            err=True,
        )
        raise


def _tell_pending(session: Session, ended: dict[str, Progress]) -> None:
    """What running guests have only after their restart."""
    changed = [one.action for one in ended.values() if one.state is State.DONE and one.action["kind"] == "vm"]
    names = dict.fromkeys(one["name"] for one in changed if one["verb"] not in ("create", "delete", "follow", "start"))
    for name in names:
        with suppress(CorralError):  # deleted since: nothing waits any more
            tell_pending(session, name)


def _report(plan: Any, ended: list[Progress], output: str) -> None:
    by_state = {state: [one for one in ended if one.state is state] for state in State}
    changed = by_state[State.DONE]
    failed = by_state[State.FAILED]
    if output in ("json", "yaml"):
        document = {
            "stack": plan["stack"],
            "done": [one.action["id"] for one in changed],
            "failed": [
                {"id": one.action["id"], "code": one.error.code, "reason": one.error.reason}
                for one in failed
                if one.error is not None
            ],
            "skipped": [one.action["id"] for one in by_state[State.SKIPPED]],
            "unchanged": list(plan["unchanged"]),
        }
        show_document(document, output)
    elif output == "name":
        for name in dict.fromkeys(str(one.action["name"]) for one in changed):
            click.echo(name)
    else:
        counts = [
            f"{len(found)} {word}"
            for word, found in (
                ("done", changed), ("failed", failed), ("skipped", by_state[State.SKIPPED]), ("unchanged", plan["unchanged"]),
            )
            if found
        ]  # fmt: skip
        click.echo(f"stack {plan['stack']}: {', '.join(counts) or 'nothing to do'}")
    if failed:
        first = failed[0].error
        raise click.exceptions.Exit(EXIT_CONFLICT if first is None else first.exit_status)
