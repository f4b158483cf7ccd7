"""Arguments and options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from corral.cli.completion import complete_vm

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
