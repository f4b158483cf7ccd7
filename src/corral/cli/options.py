"""Arguments and options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from corral.cli.completion import complete_vm


class CommandInGuest(click.Command):
    """`VM COMMAND…`: what follows the name belongs to the command. Only where `--` stands between the two, options
    may also stand after the name: `exec web --timeout 5s -- sleep 9`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = "--" in args and self._names_only(ctx, args[: args.index("--")])
        return super().parse_args(ctx, args)

    def _names_only(self, ctx: click.Context, head: list[str]) -> bool:
        """Whether options and the VM's name are all there is in `head`."""
        ctx.allow_interspersed_args = True
        try:
            values, _, _ = self.make_parser(ctx).parse_args(list(head))
        except click.UsageError:
            return False
        # What was not given is None, an empty tuple or click's own mark, by its version.
        return isinstance(values.get("name"), str) and not (
            isinstance(values.get("command"), tuple) and values["command"]
        )


_F = TypeVar("_F", bound=Callable[..., Any])


def vm_names(function: _F) -> _F:
    """One or more names of VMs, completed by the shell, as the parameter `names`."""
    return click.argument("names", nargs=-1, required=True, metavar="VM…", shell_complete=complete_vm)(function)


def async_option(function: _F) -> _F:
    """`--async`, as the parameter `asynchronous`."""
    return click.option("--async", "asynchronous", is_flag=True, help="Do not wait; print the operation's id instead.")(
        function
    )


def seconds(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """An option's duration in seconds."""
    from corral.names import parse_duration_s

    return None if value is None else parse_duration_s(value, f"--{(param.name or '').replace('_', '-')}")
