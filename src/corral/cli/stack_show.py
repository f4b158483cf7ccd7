"""Plans and their progress for people: what would change, a line for what is done, a live tree for who looks."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.output import colour_wanted, lines_of, printable
from corral.cli.session import show_error
from corral.cli.stack_run import Progress, State

if TYPE_CHECKING:
    from rich.tree import Tree

Plan = Mapping[str, Any]

# Of each verb: the sign in a plan, its colour, and what is said when it is done.
_VERBS: Final = {
    "build": ("+", "green", "built"),
    "create": ("+", "green", "created"),
    "start": ("+", "green", "started"),
    "follow": ("~", "yellow", "done"),
    "update": ("~", "yellow", "changed"),
    "shutdown": ("-", "red", "shut down"),
    "delete": ("-", "red", "deleted"),
}
_DEVICES: Final = {
    "attach": ("~", "yellow", "added"),
    "change": ("~", "yellow", "changed"),
    "detach": ("~", "red", "removed"),
}
_SIGNS: Final = {
    State.PLANNED: ("·", "dim"),
    State.WAITING: ("…", "dim"),
    State.RUNNING: ("▸", "cyan"),
    State.DONE: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.SKIPPED: ("−", "yellow"),
}
REFRESH_PER_S: Final = 8


def verb_of(action: Mapping[str, Any]) -> tuple[str, str, str]:
    verb = str(action["verb"])
    return _VERBS.get(verb) or _DEVICES[verb.partition("-")[0]]


def deletes(plan: Plan) -> list[str]:
    """What would be gone: VMs and volumes."""
    return [str(action["name"]) for action in plan["actions"] if action["verb"] == "delete"]


def show_plan(plan: Plan) -> None:
    """What would be done, one line an action and one for each change of it."""
    for action in plan["actions"]:
        sign, colour, _ = verb_of(action)
        what = f"{action['verb']} {action['device']}".rstrip() if action["device"] else str(action["verb"])
        head, *rest = [printable(line) for line in action["changes"]] or [""]
        line = f"{sign} {action['kind']} {action['name']}: {what}" + (f" ({head})" if head else "")
        click.echo(click.style(line, fg=colour) if colour_wanted() else line)
        for further in rest:
            click.echo(f"    {further}")
    if plan["unchanged"]:
        click.echo(f"= {len(plan['unchanged'])} unchanged: {_listed(plan['unchanged'])}")
    if not plan["actions"] and not plan["blocked"]:
        click.echo(f"stack {plan['stack']}: nothing to do")


def show_remarks(plan: Plan) -> None:
    """What stands in the way, and what is left over."""
    for block in plan["blocked"]:
        click.echo(f"! {block['name']}: {printable(block['reason'])}", err=True)
        for line in block["changes"]:
            click.echo(f"    {printable(line)}", err=True)
        if block["hint"]:
            click.echo(f"    {printable(block['hint'])}", err=True)
    if plan["orphans"]:
        click.echo(f"note: no longer in the document: {_listed(plan['orphans'])} (--prune deletes them)", err=True)
    for text in plan["warnings"]:
        click.echo(f"warning: {lines_of(text)}", err=True)


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(printable(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def show_done(one: Progress) -> None:
    """One line for what has ended: on standard output what was done, on standard error what was not."""
    action = one.action
    what = f"{action['name']}: {action['device']} " if action["device"] else f"{action['name']}: "
    if one.state is State.DONE:
        click.echo(f"{what}{verb_of(action)[2]}")
    elif one.state is State.SKIPPED:
        click.echo(f"{what}{action['verb']} skipped: {one.detail}", err=True)
    elif one.error is not None:
        show_error(one.error)


class Lines:
    """A line when something has ended; for logs and pipes."""

    watches = False
    interval_s = 0.5

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def on_change(self, one: Progress) -> None:
        if not self._quiet or one.state is not State.DONE:
            show_done(one)

    def look(self) -> None:
        """Nothing moves here."""


class LiveTree:
    """The tree of the stack, drawn anew while it changes; what ended is said below it, once."""

    watches = True
    interval_s = 1 / REFRESH_PER_S

    def __init__(self, stack: str, progress: Mapping[str, Progress], quiet: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stack = stack
        self._progress = progress
        self._quiet = quiet
        self._ended: list[Progress] = []
        self.live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)

    def on_change(self, one: Progress) -> None:
        self._ended.append(one)

    def look(self) -> None:
        self.live.update(self._tree(), refresh=True)

    def tell(self) -> None:
        """What ended, when the tree is gone."""
        for one in self._ended:
            if not self._quiet or one.state is not State.DONE:
                show_done(one)

    def _tree(self) -> "Tree":
        from rich.text import Text
        from rich.tree import Tree

        ended = sum(one.state is State.DONE for one in self._progress.values())
        tree = Tree(Text(f"{self._stack}: {ended} of {len(self._progress)}"))
        branches: dict[str, Tree] = {}
        for one in self._progress.values():
            action = one.action
            sign, colour = _SIGNS[one.state]
            text = Text(f"{sign} {action['verb']} {action['device']}".rstrip(), style=colour)
            if one.detail:
                text.append(f"  {printable(one.detail)}", style="dim")
            name = f"{action['kind']} {action['name']}"
            branches[name] = branches.get(name) or tree.add(Text(name))
            branches[name].add(text)
        return tree


@contextmanager
def watching(view: "Lines | LiveTree") -> Iterator[None]:
    """The tree stands while the block runs."""
    if isinstance(view, Lines):
        yield
        return
    try:
        with view.live:
            yield
    finally:
        view.tell()


def somebody_looks() -> bool:
    return sys.stderr.isatty()
